// stock is an ordinary program that uses go-spiffe as its documentation shows it. Its sisters are
// e2e/python/stock.py and e2e/src/bin/stock.rs; all three take the same words:
//
//	stock x509                    fetches the X.509 context; prints it as JSON
//	stock watch N                 prints the serial number of N X.509-SVIDs, as they come
//	stock jwt AUDIENCE            prints a JWT-SVID
//	stock validate AUDIENCE TOKEN asks the agent, and its own bundles, whose the token is
//	stock serve                   prints a port and answers mTLS there, to its own trust domain
//	stock get PORT ID             asks a server that must be ID
//
// The socket comes from SPIFFE_ENDPOINT_SOCKET.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

const patience = time.Minute

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	word, args := args[0], args[1:]
	switch word {
	case "x509":
		return x509(ctx)
	case "watch":
		return watch(ctx, args[0])
	case "jwt":
		return jwt(ctx, args[0])
	case "validate":
		return validate(ctx, args[0], args[1])
	case "serve":
		return serve(context.Background())
	case "get":
		return get(ctx, args[0], args[1])
	}
	return fmt.Errorf("unknown word %q", word)
}

func x509(ctx context.Context) error {
	client, err := workloadapi.New(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	svid, err := client.FetchX509SVID(ctx)
	if err != nil {
		return err
	}
	context, err := client.FetchX509Context(ctx)
	if err != nil {
		return err
	}
	if context.DefaultSVID().ID != svid.ID {
		return errors.New("two answers, two identities")
	}
	authorities := map[string]int{}
	for _, bundle := range context.Bundles.Bundles() {
		authorities[bundle.TrustDomain().Name()] = len(bundle.X509Authorities())
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"id":          svid.ID.String(),
		"hint":        svid.Hint,
		"not_after":   svid.Certificates[0].NotAfter.Unix(),
		"authorities": authorities,
	})
}

func watch(ctx context.Context, count string) error {
	left, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	last := ""
	for left > 0 {
		svid, err := source.GetX509SVID()
		if err != nil {
			return err
		}
		if serial := svid.Certificates[0].SerialNumber.String(); serial != last {
			fmt.Println(serial)
			last = serial
			left--
			continue
		}
		if err := source.WaitUntilUpdated(ctx); err != nil {
			return err
		}
	}
	return nil
}

func jwt(ctx context.Context, audience string) error {
	source, err := workloadapi.NewJWTSource(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	svid, err := source.FetchJWTSVID(ctx, jwtsvid.Params{Audience: audience})
	if err != nil {
		return err
	}
	fmt.Println(svid.Marshal())
	return nil
}

func validate(ctx context.Context, audience, token string) error {
	told, err := workloadapi.ValidateJWTSVID(ctx, token, audience)
	if err != nil {
		return err
	}
	source, err := workloadapi.NewJWTSource(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	found, err := jwtsvid.ParseAndValidate(token, source, []string{audience})
	if err != nil {
		return err
	}
	if told.ID != found.ID {
		return fmt.Errorf("the agent says %s, the bundles say %s", told.ID, found.ID)
	}
	fmt.Println(found.ID)
	return nil
}

func serve(ctx context.Context) error {
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	svid, err := source.GetX509SVID()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	server := &http.Server{
		TLSConfig: tlsconfig.MTLSServerConfig(source, source, tlsconfig.AuthorizeMemberOf(svid.ID.TrustDomain())),
		Handler:   http.HandlerFunc(hello),
	}
	return server.ServeTLS(listener, "", "")
}

func hello(w http.ResponseWriter, r *http.Request) {
	id, err := spiffeid.FromURI(r.TLS.PeerCertificates[0].URIs[0])
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	fmt.Fprintf(w, "hello %s", id)
}

func get(ctx context.Context, port, id string) error {
	source, err := workloadapi.NewX509Source(ctx)
	if err != nil {
		return err
	}
	defer source.Close()
	server, err := spiffeid.FromString(id)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(server)),
	}}
	response, err := client.Get("https://127.0.0.1:" + port)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}
