import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.security.PrivilegedActionException;
import java.security.PrivilegedExceptionAction;
import java.util.HashMap;
import java.util.Map;
import javax.security.auth.Subject;
import javax.security.auth.login.AppConfigurationEntry;
import javax.security.auth.login.Configuration;
import javax.security.auth.login.LoginContext;
import org.ietf.jgss.ChannelBinding;
import org.ietf.jgss.GSSContext;
import org.ietf.jgss.GSSCredential;
import org.ietf.jgss.GSSException;
import org.ietf.jgss.GSSManager;
import org.ietf.jgss.GSSName;
import org.ietf.jgss.MessageProp;
import org.ietf.jgss.Oid;

/** Java's GSS-API as a peer of the tests: obeys the commands that gss_peer.py describes. */
public final class GssPeer {
    private static final int DELEG = 1, MUTUAL = 2, REPLAY = 4, SEQUENCE = 8, CONF = 16, INTEG = 32;

    private record Peer(Subject subject, GSSContext context, boolean initiator) {}

    private static final Map<String, Peer> PEERS = new HashMap<>();
    private static final GSSManager MANAGER = GSSManager.getInstance();

    public static void main(String[] arguments) throws Exception {
        DataInputStream in = new DataInputStream(new BufferedInputStream(System.in));
        DataOutputStream out = new DataOutputStream(new BufferedOutputStream(System.out));
        while (true) {
            byte[][] request;
            try {
                request = read(in);
            } catch (EOFException end) {
                return;
            }
            try {
                byte[][] answer = obey(request);
                write(out, "ok".getBytes(), answer);
            } catch (Exception error) {
                write(out, "error".getBytes(), bytes(describe(error)), new byte[0]);
            }
            out.flush();
        }
    }

    private static byte[][] read(DataInputStream in) throws IOException {
        byte[][] fields = new byte[in.readInt()][];
        for (int i = 0; i < fields.length; i++) {
            fields[i] = new byte[in.readInt()];
            in.readFully(fields[i]);
        }
        return fields;
    }

    private static void write(DataOutputStream out, byte[] status, byte[]... fields) throws IOException {
        out.writeInt(1 + fields.length);
        out.writeInt(status.length);
        out.write(status);
        for (byte[] field : fields) {
            out.writeInt(field.length);
            out.write(field);
        }
    }

    private static String describe(Throwable error) {
        StringBuilder text = new StringBuilder();
        for (Throwable cause = error; cause != null; cause = cause.getCause()) {
            text.append(text.length() == 0 ? "" : ": ").append(cause);
        }
        return text.toString();
    }

    private static byte[] bytes(Object value) {
        return String.valueOf(value).getBytes();
    }

    private static boolean isSet(byte[] field) {
        return field.length == 1 && field[0] == '1';
    }

    private static byte[][] obey(byte[][] request) throws Exception {
        String number = new String(request[1]);
        String command = new String(request[0]);
        if (command.equals("initiate")) {
            initiate(number, new String(request[2]), new String(request[3]), Integer.parseInt(new String(request[4])), request[5], mechanism(request[6]));
            return new byte[0][];
        }
        if (command.equals("accept")) {
            accept(number, new String(request[2]), request[3], mechanism(request[4]));
            return new byte[0][];
        }
        Peer peer = PEERS.get(number);
        GSSContext context = peer.context();
        switch (command) {
            case "step": {
                byte[] token = step(peer, request[2]);
                return new byte[][] {token == null ? new byte[0] : token, bytes(context.isEstablished() ? "1" : "0")};
            }
            case "wrap":
                return new byte[][] {context.wrap(request[2], 0, request[2].length, new MessageProp(0, isSet(request[3])))};
            case "unwrap": {
                MessageProp state = new MessageProp(0, false);
                byte[] data = context.unwrap(request[2], 0, request[2].length, state);
                check(state);
                return new byte[][] {data, bytes(state.getPrivacy() ? "1" : "0")};
            }
            case "mic":
                return new byte[][] {context.getMIC(request[2], 0, request[2].length, new MessageProp(0, false))};
            case "verify": {
                MessageProp state = new MessageProp(0, false);
                context.verifyMIC(request[3], 0, request[3].length, request[2], 0, request[2].length, state);
                check(state);
                return new byte[0][];
            }
            case "limit":
                return new byte[][] {bytes(context.getWrapSizeLimit(0, isSet(request[3]), Integer.parseInt(new String(request[2]))))};
            case "info":
                return new byte[][] {bytes(flags(context)), bytes(context.getSrcName()), bytes(context.getTargName())};
            case "delegated": { // Java cannot write a ccache: it gets a ticket for the service named instead of the file.
                GSSName target = MANAGER.createName(new String(request[2]), GSSName.NT_HOSTBASED_SERVICE);
                GSSContext onward = MANAGER.createContext(target, mechanism("kerberos".getBytes()), context.getDelegCred(), GSSContext.DEFAULT_LIFETIME);
                onward.initSecContext(new byte[0], 0, 0);
                return new byte[][] {bytes(onward.getSrcName())};
            }
            case "close":
                context.dispose();
                PEERS.remove(number);
                return new byte[0][];
            default:
                throw new IllegalArgumentException(command);
        }
    }

    /** Java reports what is wrong with a genuine token's sequence beside its data; the tests want a refusal. */
    private static void check(MessageProp state) throws GSSException {
        if (state.isDuplicateToken()) throw new GSSException(GSSException.DUPLICATE_TOKEN);
        if (state.isOldToken()) throw new GSSException(GSSException.OLD_TOKEN);
        if (state.isUnseqToken()) throw new GSSException(GSSException.UNSEQ_TOKEN);
        if (state.isGapToken()) throw new GSSException(GSSException.GAP_TOKEN);
    }

    private static int flags(GSSContext context) {
        return (context.getCredDelegState() ? DELEG : 0) | (context.getMutualAuthState() ? MUTUAL : 0)
            | (context.getReplayDetState() ? REPLAY : 0) | (context.getSequenceDetState() ? SEQUENCE : 0)
            | (context.getConfState() ? CONF : 0) | (context.getIntegState() ? INTEG : 0);
    }

    private static void initiate(String number, String target, String ccache, int flags, byte[] bindings, Oid mechanism) throws Exception {
        Subject subject = login(Map.of("useTicketCache", "true", "ticketCache", ccache, "doNotPrompt", "true"));
        as(subject, () -> {
            GSSCredential credential = MANAGER.createCredential(null, GSSCredential.INDEFINITE_LIFETIME, mechanism, GSSCredential.INITIATE_ONLY);
            GSSName name = MANAGER.createName(target, GSSName.NT_HOSTBASED_SERVICE);
            GSSContext context = MANAGER.createContext(name, mechanism, credential, GSSContext.DEFAULT_LIFETIME);
            context.requestCredDeleg((flags & DELEG) != 0);
            context.requestMutualAuth((flags & MUTUAL) != 0);
            context.requestReplayDet((flags & REPLAY) != 0);
            context.requestSequenceDet((flags & SEQUENCE) != 0);
            context.requestConf((flags & CONF) != 0);
            context.requestInteg((flags & INTEG) != 0);
            if (bindings.length > 0) context.setChannelBinding(new ChannelBinding(bindings));
            return PEERS.put(number, new Peer(subject, context, true));
        });
    }

    private static void accept(String number, String keytab, byte[] bindings, Oid mechanism) throws Exception {
        Subject subject = login(Map.of("useKeyTab", "true", "keyTab", keytab, "storeKey", "true", "principal", "*",
            "isInitiator", "false", "doNotPrompt", "true"));
        as(subject, () -> {
            GSSCredential credential = MANAGER.createCredential(null, GSSCredential.INDEFINITE_LIFETIME, mechanism, GSSCredential.ACCEPT_ONLY);
            GSSContext context = MANAGER.createContext(credential);
            if (bindings.length > 0) context.setChannelBinding(new ChannelBinding(bindings));
            return PEERS.put(number, new Peer(subject, context, false));
        });
    }

    private static byte[] step(Peer peer, byte[] token) throws Exception {
        return as(peer.subject(), () -> peer.initiator()
            ? peer.context().initSecContext(token, 0, token.length)
            : peer.context().acceptSecContext(token, 0, token.length));
    }

    private static Oid mechanism(byte[] name) throws GSSException {
        return new Oid(new String(name).equals("negotiate") ? "1.3.6.1.5.5.2" : "1.2.840.113554.1.2.2");
    }

    private static <T> T as(Subject subject, PrivilegedExceptionAction<T> action) throws Exception {
        try {
            return Subject.doAs(subject, action);
        } catch (PrivilegedActionException error) {
            throw error.getException();
        }
    }

    private static Subject login(Map<String, String> options) throws Exception {
        Configuration configuration = new Configuration() {
            @Override
            public AppConfigurationEntry[] getAppConfigurationEntry(String name) {
                return new AppConfigurationEntry[] {new AppConfigurationEntry("com.sun.security.auth.module.Krb5LoginModule",
                    AppConfigurationEntry.LoginModuleControlFlag.REQUIRED, options)};
            }
        };
        LoginContext context = new LoginContext("peer", new Subject(), null, configuration);
        context.login();
        return context.getSubject();
    }
}
