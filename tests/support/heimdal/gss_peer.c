/* Heimdal's GSS-API as a peer of the tests: obeys the commands that gss_peer.py describes. */

#include <gssapi/gssapi.h>
#include <gssapi/gssapi_krb5.h>
#include <gssapi/gssapi_spnego.h>
#include <krb5.h>

#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FIELDS 8
#define MAX_CONTEXTS 4096
#define FLAGS (GSS_C_DELEG_FLAG | GSS_C_MUTUAL_FLAG | GSS_C_REPLAY_FLAG | GSS_C_SEQUENCE_FLAG | GSS_C_CONF_FLAG | GSS_C_INTEG_FLAG)

struct peer {
    int initiator;
    gss_ctx_id_t context;
    gss_cred_id_t credential, delegated;
    gss_name_t target;
    gss_OID mechanism;
    OM_uint32 flags;
    gss_buffer_desc bindings;
};

static struct peer peers[MAX_CONTEXTS];
static krb5_context krb5;

static void must(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "%s failed\n", what);
        exit(1);
    }
}

/* --- frames --- */

static int read_number(uint32_t *number)
{
    uint32_t wire;
    if (fread(&wire, sizeof wire, 1, stdin) != 1)
        return 0;
    *number = ntohl(wire);
    return 1;
}

static void write_number(uint32_t number)
{
    uint32_t wire = htonl(number);
    must(fwrite(&wire, sizeof wire, 1, stdout) == 1, "write");
}

static void write_field(const void *data, size_t length)
{
    write_number((uint32_t)length);
    must(fwrite(data, 1, length, stdout) == length, "write");
}

static void write_text(const char *text) { write_field(text, strlen(text)); }

static void begin_ok(uint32_t fields)
{
    write_number(1 + fields);
    write_text("ok");
}

static void answer_error(OM_uint32 major, OM_uint32 minor, gss_buffer_t token)
{
    char text[512];
    OM_uint32 ignored, more = 0;
    gss_buffer_desc why = GSS_C_EMPTY_BUFFER, detail = GSS_C_EMPTY_BUFFER;
    gss_display_status(&ignored, major, GSS_C_GSS_CODE, GSS_C_NO_OID, &more, &why);
    more = 0;
    gss_display_status(&ignored, minor, GSS_C_MECH_CODE, GSS_KRB5_MECHANISM, &more, &detail);
    snprintf(text, sizeof text, "%.*s: %.*s (%#x, %u)", (int)why.length, (char *)why.value, (int)detail.length, (char *)detail.value, major, minor);
    write_number(3);
    write_text("error");
    write_text(text);
    write_field(token ? token->value : "", token ? token->length : 0);
    gss_release_buffer(&ignored, &why);
    gss_release_buffer(&ignored, &detail);
}

/* --- commands; field[0] is the command, field[1] the context's number --- */

static gss_channel_bindings_t bindings_of(struct peer *peer, gss_channel_bindings_t storage)
{
    memset(storage, 0, sizeof *storage);
    storage->application_data = peer->bindings;
    return peer->bindings.length ? storage : GSS_C_NO_CHANNEL_BINDINGS;
}

static int is_spnego(gss_buffer_t mechanism) { return strcmp(mechanism->value, "negotiate") == 0; }

static void initiate(struct peer *peer, gss_buffer_t field)
{
    OM_uint32 major, minor;
    krb5_ccache ccache;
    must(krb5_cc_resolve(krb5, field[3].value, &ccache) == 0, "krb5_cc_resolve");
    peer->initiator = 1;
    peer->mechanism = is_spnego(&field[6]) ? GSS_SPNEGO_MECHANISM : GSS_KRB5_MECHANISM;
    peer->flags = (OM_uint32)atoi(field[4].value);
    peer->bindings = field[5];
    field[5].value = NULL; /* ours now */
    major = gss_import_name(&minor, &field[2], GSS_C_NT_HOSTBASED_SERVICE, &peer->target);
    if (is_spnego(&field[6])) /* takes the default credential alone */
        must(setenv("KRB5CCNAME", field[3].value, 1) == 0, "setenv");
    else if (major == GSS_S_COMPLETE)
        major = gss_krb5_import_cred(&minor, ccache, NULL, NULL, &peer->credential);
    if (major == GSS_S_COMPLETE)
        begin_ok(0);
    else
        answer_error(major, minor, NULL);
}

static void accept_(struct peer *peer, gss_buffer_t field)
{
    OM_uint32 major, minor;
    krb5_keytab keytab;
    must(krb5_kt_resolve(krb5, field[2].value, &keytab) == 0, "krb5_kt_resolve");
    peer->bindings = field[3];
    field[3].value = NULL; /* ours now */
    if (is_spnego(&field[4]))
        major = gsskrb5_register_acceptor_identity(field[2].value);
    else
        major = gss_krb5_import_cred(&minor, NULL, NULL, keytab, &peer->credential);
    if (major == GSS_S_COMPLETE)
        begin_ok(0);
    else
        answer_error(major, minor, NULL);
}

static void step(struct peer *peer, gss_buffer_t field)
{
    OM_uint32 major, minor, ignored;
    gss_buffer_desc out = GSS_C_EMPTY_BUFFER;
    struct gss_channel_bindings_struct storage;
    gss_channel_bindings_t bindings = bindings_of(peer, &storage);
    if (peer->initiator)
        major = gss_init_sec_context(&minor, peer->credential, &peer->context, peer->target, peer->mechanism, peer->flags, 0,
                                     bindings, field[2].length ? &field[2] : GSS_C_NO_BUFFER, NULL, &out, NULL, NULL);
    else
        major = gss_accept_sec_context(&minor, &peer->context, peer->credential, &field[2], bindings, NULL, NULL, &out, NULL, NULL,
                                       &peer->delegated);
    if (GSS_ERROR(major)) {
        answer_error(major, minor, &out);
    } else {
        begin_ok(2);
        write_field(out.value, out.length);
        write_text(major & GSS_S_CONTINUE_NEEDED ? "0" : "1");
    }
    gss_release_buffer(&ignored, &out);
}

static void wrap(struct peer *peer, gss_buffer_t field)
{
    OM_uint32 minor, ignored;
    int sealed;
    gss_buffer_desc out = GSS_C_EMPTY_BUFFER;
    OM_uint32 major = gss_wrap(&minor, peer->context, atoi(field[3].value), GSS_C_QOP_DEFAULT, &field[2], &sealed, &out);
    if (major != GSS_S_COMPLETE) {
        answer_error(major, minor, NULL);
        return;
    }
    begin_ok(1);
    write_field(out.value, out.length);
    gss_release_buffer(&ignored, &out);
}

/* A supplementary status (duplicate, old, out of sequence, gap) is a refusal too. */
static void unwrap(struct peer *peer, gss_buffer_t field)
{
    OM_uint32 minor, ignored;
    int sealed;
    gss_buffer_desc out = GSS_C_EMPTY_BUFFER;
    OM_uint32 major = gss_unwrap(&minor, peer->context, &field[2], &out, &sealed, NULL);
    if (major != GSS_S_COMPLETE) {
        answer_error(major, minor, NULL);
    } else {
        begin_ok(2);
        write_field(out.value, out.length);
        write_text(sealed ? "1" : "0");
    }
    gss_release_buffer(&ignored, &out);
}

static void mic(struct peer *peer, gss_buffer_t field)
{
    OM_uint32 minor, ignored;
    gss_buffer_desc out = GSS_C_EMPTY_BUFFER;
    OM_uint32 major = gss_get_mic(&minor, peer->context, GSS_C_QOP_DEFAULT, &field[2], &out);
    if (major != GSS_S_COMPLETE) {
        answer_error(major, minor, NULL);
        return;
    }
    begin_ok(1);
    write_field(out.value, out.length);
    gss_release_buffer(&ignored, &out);
}

static void verify(struct peer *peer, gss_buffer_t field)
{
    OM_uint32 minor;
    OM_uint32 major = gss_verify_mic(&minor, peer->context, &field[2], &field[3], NULL);
    if (major != GSS_S_COMPLETE)
        answer_error(major, minor, NULL);
    else
        begin_ok(0);
}

static void limit(struct peer *peer, gss_buffer_t field)
{
    char text[16];
    OM_uint32 minor, size;
    OM_uint32 major = gss_wrap_size_limit(&minor, peer->context, atoi(field[3].value), GSS_C_QOP_DEFAULT,
                                          (OM_uint32)atoi(field[2].value), &size);
    if (major != GSS_S_COMPLETE) {
        answer_error(major, minor, NULL);
        return;
    }
    snprintf(text, sizeof text, "%u", size);
    begin_ok(1);
    write_text(text);
}

static void write_name(gss_name_t name)
{
    OM_uint32 ignored;
    gss_buffer_desc text = GSS_C_EMPTY_BUFFER;
    gss_display_name(&ignored, name, &text, NULL);
    write_field(text.value, text.length);
    gss_release_buffer(&ignored, &text);
}

static void info(struct peer *peer)
{
    char text[16];
    gss_name_t initiator, acceptor;
    OM_uint32 minor, flags, ignored;
    OM_uint32 major = gss_inquire_context(&minor, peer->context, &initiator, &acceptor, NULL, NULL, &flags, NULL, NULL);
    if (major != GSS_S_COMPLETE) {
        answer_error(major, minor, NULL);
        return;
    }
    snprintf(text, sizeof text, "%u", flags & FLAGS);
    begin_ok(3);
    write_text(text);
    write_name(initiator);
    write_name(acceptor);
    gss_release_name(&ignored, &initiator);
    gss_release_name(&ignored, &acceptor);
}

static void delegated(struct peer *peer, gss_buffer_t field)
{
    gss_name_t name;
    OM_uint32 major, minor, ignored;
    krb5_ccache ccache;
    must(krb5_cc_resolve(krb5, field[2].value, &ccache) == 0, "krb5_cc_resolve");
    major = gss_inquire_cred(&minor, peer->delegated, &name, NULL, NULL, NULL);
    if (major == GSS_S_COMPLETE)
        major = gss_krb5_copy_ccache(&minor, peer->delegated, ccache);
    if (major != GSS_S_COMPLETE) {
        answer_error(major, minor, NULL);
        return;
    }
    begin_ok(1);
    write_name(name);
    gss_release_name(&ignored, &name);
}

static void close_(struct peer *peer)
{
    OM_uint32 ignored;
    gss_delete_sec_context(&ignored, &peer->context, GSS_C_NO_BUFFER);
    gss_release_cred(&ignored, &peer->credential);
    gss_release_cred(&ignored, &peer->delegated);
    gss_release_name(&ignored, &peer->target);
    free(peer->bindings.value);
    begin_ok(0);
}

int main(void)
{
    uint32_t count, i;
    must(krb5_init_context(&krb5) == 0, "krb5_init_context");
    while (read_number(&count)) {
        gss_buffer_desc field[MAX_FIELDS];
        struct peer *peer;
        const char *command;
        int number;
        must(count >= 2 && count <= MAX_FIELDS, "a request of 2 to 8 fields");
        for (i = 0; i < count; i++) {
            uint32_t length;
            must(read_number(&length), "read");
            field[i].length = length;
            field[i].value = calloc(1, (size_t)length + 1);
            must(field[i].value != NULL, "calloc");
            must(fread(field[i].value, 1, length, stdin) == length, "read");
        }
        command = field[0].value;
        number = atoi(field[1].value);
        must(number > 0 && number < MAX_CONTEXTS, "a context's number");
        peer = &peers[number];
        if (strcmp(command, "initiate") == 0)
            initiate(peer, field);
        else if (strcmp(command, "accept") == 0)
            accept_(peer, field);
        else if (strcmp(command, "step") == 0)
            step(peer, field);
        else if (strcmp(command, "wrap") == 0)
            wrap(peer, field);
        else if (strcmp(command, "unwrap") == 0)
            unwrap(peer, field);
        else if (strcmp(command, "mic") == 0)
            mic(peer, field);
        else if (strcmp(command, "verify") == 0)
            verify(peer, field);
        else if (strcmp(command, "limit") == 0)
            limit(peer, field);
        else if (strcmp(command, "info") == 0)
            info(peer);
        else if (strcmp(command, "delegated") == 0)
            delegated(peer, field);
        else if (strcmp(command, "close") == 0)
            close_(peer);
        else
            must(0, command);
        fflush(stdout);
        for (i = 0; i < count; i++)
            free(field[i].value);
    }
    return 0;
}
