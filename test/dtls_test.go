package test

import (
	"path/filepath"
	"testing"

	"fairlead/test/lab"
)

// DTLS, out and in by a published port: handshakes whose messages are larger than
// a datagram, and words in both directions.
func TestDTLS(t *testing.T) {
	lab.Need(t, "openssl")
	eachUplink(t, func(t *testing.T, o *outside) {
		dir := filepath.Dir(o.dir)
		key, cert := filepath.Join(dir, "key"), filepath.Join(dir, "cert")
		o.Host.Run(t, "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-subj", "/CN=dtls.example", "-days", "2")
		// Whoever comes is told the same word again and again.
		server := []string{"sh", "-c", `while sleep 0.1; do echo backward; done | openssl s_server -dtls -quiet -accept 4433 -key "$0" -cert "$1"`, key, cert}
		client := []string{"sh", "-ec", `out=$(mktemp)
			{ echo forward; for i in $(seq 100); do ! grep -q backward $out || break; sleep 0.1; done; } |
				openssl s_client -dtls -quiet -no_ign_eof -connect "$0:4433" -CAfile "$1" -verify_return_error >$out 2>&1 || true
			cat $out; rm $out`}
		outside := o.Host.Serve(t, server[0], server[1:]...)
		lab.Eventually(t, patience, func() error { return contains(o.Host.Run(t, "ss", "-Hlnu"), ":4433 ") })
		o.start("a", append([]string{"-p", "4433:4433/udp", "--"}, server...)...)
		lab.Eventually(t, patience, func() error { return contains(o.exec("a", "ss", "-Hlnu"), ":4433 ") })
		if err := contains(o.exec("a", append(client, o.Router.FarHost, cert)...), "backward"); err != nil {
			t.Error("out: ", err)
		}
		o.says(outside, "forward")
		if err := contains(o.Host.Run(t, client[0], append(client[1:], o.reach, cert)...), "backward"); err != nil {
			t.Error("in: ", err)
		}
		o.logSays("a", "forward")
	})
}
