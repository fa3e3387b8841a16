// A web server behind gokrb5's SPNEGO: `spnego_server ADDRESS KEYTAB`. It answers with the name of who asks.
package main

import (
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/jcmturner/goidentity/v6"
	"github.com/jcmturner/gokrb5/v8/keytab"
	"github.com/jcmturner/gokrb5/v8/service"
	"github.com/jcmturner/gokrb5/v8/spnego"
)

func main() {
	keys, err := keytab.Load(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := goidentity.FromHTTPRequestContext(r)
		fmt.Fprintf(w, "%s@%s", who.UserName(), who.Domain())
	})
	// MIT's PAC has no logon information, without which gokrb5 refuses a ticket.
	guarded := spnego.SPNEGOKRB5Authenticate(page, keys, service.DecodePAC(false))
	log.Fatal(http.ListenAndServe(os.Args[1], guarded))
}
