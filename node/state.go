package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"fairlead/node/api"
	"fairlead/node/network"
)

// stateFile keeps networks that were made by hand: they outlive the node.
// Containers do not.
const (
	stateFile    = "state.json"
	stateVersion = 1
)

// maxState bounds what is read of it: as many networks as there may be, with a
// policy each, are below.
const maxState = 16 << 20

// A state is what the file holds.
type state struct {
	Version  int        `json:"version"`
	Networks []savedLan `json:"networks"`
}

// A savedLan is a network as it was asked for, with what was chosen.
type savedLan struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	api.NetworkCreate
	Rules []api.RuleRequest `json:"rules,omitempty"` // in the order they were added
}

// readState reads the file; without one there is nothing.
func (h *home) readState() (*state, error) {
	path := filepath.Join(h.Name(), stateFile)
	text, err := h.readSome(stateFile, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return &state{Version: stateVersion}, nil
	} else if err != nil {
		return nil, fmt.Errorf("networks of the node before: %w", err)
	}
	s, err := parseState(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; `rm %[1]s` forgets its networks", path, err)
	}
	return s, nil
}

// parseState reads what the file holds. One of a later version is refused: what
// it means is not known, and to write it anew would lose it.
func parseState(text []byte) (*state, error) {
	s := new(state)
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("networks of the node before: %w", err)
	}
	if s.Version != stateVersion {
		return nil, fmt.Errorf("it has version %d, and this fairlead reads version %d: start the one that wrote it", s.Version, stateVersion)
	}
	if len(s.Networks) >= int(network.MaxNetworks) {
		return nil, fmt.Errorf("it has %d networks, %d are the most", len(s.Networks), network.MaxNetworks-1)
	}
	return s, s.check()
}

// validID reports whether newID could have made it. All that shows an id counts on
// its length.
func validID(id string) bool { return len(id) == 64 && strings.Trim(id, "0123456789abcdef") == "" }

// check refuses networks that could not be told from one another, or shown. What
// they were asked to be is read like any request when they are made.
func (s *state) check() error {
	names, ids := make(map[string]bool), make(map[string]bool)
	for _, saved := range s.Networks {
		switch {
		case !validID(saved.ID):
			return fmt.Errorf("network %q has the id %q, which is not 64 hexadecimal digits", saved.Name, saved.ID)
		case ids[saved.ID]:
			return fmt.Errorf("two networks have the id %s", saved.ID)
		case names[saved.Name]:
			return fmt.Errorf("two networks have the name %q", saved.Name)
		}
		names[saved.Name], ids[saved.ID] = true, true
	}
	return nil
}

// readSome reads a file of at most that many bytes.
func (h *home) readSome(name string, most int64) ([]byte, error) {
	info, err := h.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > most {
		return nil, fmt.Errorf("%s is no file of at most %d bytes", filepath.Join(h.Name(), name), most)
	}
	return h.ReadFile(name)
}

// writeState replaces the file, whole or not at all: what is there is the state
// before or the one after, also when the power fails. Nothing is no file. It is
// called before what it says holds, which then cannot fail for its sake.
func (h *home) writeState(s *state) error {
	if err := h.replaceState(s); err != nil {
		return fmt.Errorf("%s cannot be written, nothing is changed: %w; it needs room (`df %s`), and the right to write there",
			filepath.Join(h.Name(), stateFile+".new"), err, h.Name())
	}
	return nil
}

func (h *home) replaceState(s *state) error {
	if len(s.Networks) == 0 {
		return h.removeFile(stateFile)
	}
	return h.replace(stateFile, s)
}

// removeFile takes a file away if it is there.
func (h *home) removeFile(name string) error {
	if err := h.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// replace writes a file anew, whole or not at all, also when the power fails.
func (h *home) replace(name string, v any) error { return h.replaceFile(name, v, true) }

// replaceFile does so, also when the power fails or only when a process does.
func (h *home) replaceFile(name string, v any, lasts bool) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	fresh := name + ".new"
	f, err := h.OpenFile(fresh, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err == nil && lasts {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = h.Rename(fresh, name)
	}
	if err != nil {
		return errors.Join(err, h.Remove(fresh))
	}
	return nil
}

// saveState writes what there is now. linking is held, so that the last one
// written is the last one there was.
func (n *Node) saveState() error {
	n.mu.Lock()
	s := n.stateLocked()
	n.mu.Unlock()
	return n.home.writeState(s)
}

// stateLocked is what there is now.
func (n *Node) stateLocked() *state {
	s := &state{Version: stateVersion}
	for _, l := range n.lans {
		if l.custom() {
			s.Networks = append(s.Networks, savedLan{l.id, l.created, l.requestLocked(), n.rulesOnLocked(l)})
		}
	}
	return s
}

// of is where a network is in the list, -1 where it is not.
func (s *state) of(l *lan) int {
	return slices.IndexFunc(s.Networks, func(x savedLan) bool { return x.ID == l.id })
}

// requestLocked is what makes such a network again.
func (l *lan) requestLocked() api.NetworkCreate {
	req := api.NetworkCreate{
		Name: l.name, Subnet: l.conf.Gateway.Masked().String(), Gateway: l.conf.Gateway.Addr().String(),
		Internal: l.conf.Internal, Options: l.conf.Options.Pairs(), Labels: l.labels,
		Egress: l.reach.asked, HostLoopback: &l.reach.hostLoopback,
	}
	if p := l.conf.Pool; p != nil {
		if p.Range.IsValid() {
			req.IPRange = p.Range.String()
		}
		req.AuxAddresses = make(map[string]string, len(p.Aux))
		for name, a := range p.Aux {
			req.AuxAddresses[name] = a.String()
		}
	}
	return req
}

// restoreLocked makes the networks there were again.
func (n *Node) restoreLocked(s *state) error {
	for _, saved := range s.Networks {
		if saved.Name == defaultName { // it is there, but for its rules
		} else if err := n.makeLocked(newLan(saved.ID, saved.Name, saved.Created), saved.NetworkCreate); err != nil {
			return fmt.Errorf("%s: %w; `rm %[1]s` forgets its networks", filepath.Join(n.home.Name(), stateFile), err)
		}
		for _, r := range saved.Rules {
			r.Network = saved.Name
			if _, err := n.addRuleLocked(r); err != nil {
				return fmt.Errorf("%s: %w; `rm %[1]s` forgets its networks", filepath.Join(n.home.Name(), stateFile), err)
			}
		}
	}
	return nil
}

// taken are the subnets of the networks there were, which the default one leaves
// to them.
func (s *state) taken() (list []network.Taken) {
	for _, saved := range s.Networks {
		if conf, err := readNetwork(&saved.NetworkCreate, nil); err == nil {
			list = append(list, network.Taken{Prefix: conf.Gateway.Masked(), By: "network " + saved.Name})
		}
	}
	return list
}

// HasState reports whether a node that ended has left networks in dir for the next
// one.
func HasState(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, stateFile))
	return err == nil
}
