package node

import (
	"testing"

	"fairlead/node/api"
	"fairlead/node/network"
	"fairlead/test/lab"
)

// unknownOption is what is said of a network's option that there is not.
func unknownOption(key string) string {
	_, err := network.ParseOptions(map[string]string{key: "x"})
	return err.Error()
}

func TestReadSetup(t *testing.T) {
	for want, options := range map[string]map[string]string{
		`option flows: "many" is not a number from 64 to 4194304`:            {"flows": "many"},
		`option flows-per-container: "0" is not a number from 64 to 4194304`: {"flows-per-container": "0"},
		`option flows: "9999999" is not a number from 64 to 4194304`:         {"flows": "9999999", "mtu": "1400"},
		`option mtu: "9" is not a number from 576 to 65521`:                  {"flows": "1000", "mtu": "9"},
		unknownOption("flow"): {"flow": "1000"},
	} {
		_, err := readSetup(api.UpRequest{Options: options})
		refused(t, err, want)
	}
	_, err := readSetup(api.UpRequest{BIP: "x"})
	refused(t, err, `"x" is not an address with a length, such as 172.17.42.1/16`)
	s, err := readSetup(api.UpRequest{Options: map[string]string{"flows": "1000", "flows-per-container": "100", "hub": "on"}})
	if err != nil || s.nat.Flows != 1000 || s.nat.PerContainer != 100 || !s.net.Options.Hub || !s.chosen {
		t.Errorf("%+v, %v", s, err)
	}
}

// up may be said again as it is, whatever runs; anything else waits until the
// network is not used.
func TestUpAgain(t *testing.T) {
	lab.NoLeaks(t)
	r := serve(t)
	up := api.UpRequest{BIP: "172.17.42.1/16", Options: map[string]string{"flows": "1000"}}
	if err := r.Post(r.ctx, "/v1/up", up, nil); err != nil {
		t.Fatal(err)
	}
	c := r.create(api.CreateRequest{})
	if err := r.Post(r.ctx, "/v1/up", up, nil); err != nil || c.Link.Gateway != "172.17.42.1" {
		t.Errorf("gateway %s, %v", c.Link.Gateway, err)
	}
	up.Options["flows"] = "2000"
	refused(t, r.Post(r.ctx, "/v1/up", up, nil), "network default has 1 container, so it stays as it is; stop them first: `fairlead down --all`")
	if err := r.Delete(r.ctx, "/v1/containers/"+c.ID, nil); err != nil {
		t.Fatal(err)
	}
	if err := r.Post(r.ctx, "/v1/up", up, nil); err != nil {
		t.Error(err)
	}
	var check api.Check
	if err := r.Get(r.ctx, "/v1/check", &check); err != nil || len(check.Violations) > 0 {
		t.Error(check, err)
	}
}
