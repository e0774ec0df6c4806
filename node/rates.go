package node

import (
	"fmt"
	"net/http"

	"fairlead/node/api"
	"fairlead/policy"
)

// readRates reads what a new container may receive and send. Only one with a port
// of its own on a network can be held to it.
func (c *container) readRates() error {
	if c.req.RateIn == "" && c.req.RateOut == "" {
		return nil
	}
	switch {
	case c.mode == modeShared:
		return fail(http.StatusBadRequest, "conflicting options: --rate-in and --rate-out and the container type network mode; leave them out: those of %s hold for both", c.share.name())
	case c.mode != modeBridge && c.mode != modeForeign:
		return fail(http.StatusBadRequest, "conflicting options: --rate-in and --rate-out and the network mode; with --network %s there is no port on a network to hold to it", c.req.Network)
	}
	return c.setRates(&c.req.RateIn, &c.req.RateOut)
}

// setRates holds the container to rates from now on; nil leaves one as it is.
func (c *container) setRates(in, out *string) error {
	i, o := c.limit.Rates()
	for _, x := range []struct {
		flag string
		word *string
		to   *policy.Bandwidth
	}{{"--rate-in", in, &i}, {"--rate-out", out, &o}} {
		if x.word == nil || *x.word == "" {
			continue
		}
		b, err := policy.ParseBandwidth(*x.word)
		if err != nil {
			return statusError{http.StatusBadRequest, fmt.Errorf("%s: %w", x.flag, err)}
		}
		*x.to = b
	}
	c.limit.Set(i, o)
	return nil
}

// postUpdate changes a container that runs.
func (n *Node) postUpdate(w http.ResponseWriter, r *http.Request, c *container) (any, error) {
	var req api.UpdateRequest
	if err := body(w, r, &req); err != nil {
		return nil, err
	}
	if req.RateIn == nil && req.RateOut == nil {
		return nil, fail(http.StatusBadRequest, "update %s: nothing is to change; it takes --rate-in and --rate-out", c.name())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case c.mode == modeShared:
		return nil, fail(http.StatusConflict, "container %s lives in the namespace of %s, and is held to its rates: `fairlead update --rate-in RATE %[2]s`", c.name(), c.share.name())
	case len(c.attachments) == 0 && c.mode != modeBridge && c.mode != modeForeign:
		return nil, fail(http.StatusConflict, "container %s is on no network (--network %s), so it has no rates", c.name(), c.networkName())
	}
	err := c.setRates(req.RateIn, req.RateOut)
	n.renoteLocked(c)
	return done, err
}

// rateWords are the rates of a container, empty where there is none.
func (c *container) rateWords() (in, out string) {
	if c.share != nil {
		c = c.share
	}
	words := func(b policy.Bandwidth) string {
		if b == 0 {
			return ""
		}
		return b.String()
	}
	i, o := c.limit.Rates()
	return words(i), words(o)
}
