package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"path/filepath"
	"time"

	"fairlead/dhcp"
	"fairlead/loop"
	"fairlead/packet"
)

// The leases of stations on no container's port are kept in leasesFile, which is
// written leasesEvery at most. leasesVersion is that of its form.
const (
	leasesFile    = "leases.json"
	leasesVersion = 1
	leasesEvery   = time.Second

	maxLeasesFile = 16 << 20 // as state.json
)

// A keptLease is one in the file.
type keptLease struct {
	MAC      packet.MAC `json:"mac"`
	ClientID string     `json:"client_id,omitempty"`
	IP       netip.Addr `json:"ip"`
	Hostname string     `json:"hostname,omitempty"`
	Expires  *time.Time `json:"expires,omitempty"` // missing: it does not
}

// leasesOnDisk is the file.
type leasesOnDisk struct {
	Version  int                    `json:"version"`
	Networks map[string][]keptLease `json:"networks"`
}

// changes grows with the leases.
func (d *lenders) changes() (sum uint64) {
	for _, l := range d.of {
		sum += l.server.Changes()
	}
	return sum
}

// readLeases reads the file. One of a later version is refused, as networks are.
// What is no lease of ours is no reason to be without addresses, so it is put
// aside: stations are asked for theirs again.
func (h *home) readLeases() (map[string][]keptLease, error) {
	path := filepath.Join(h.Name(), leasesFile)
	text, err := h.readSome(leasesFile, maxLeasesFile)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string][]keptLease{}, nil
	}
	file := new(leasesOnDisk)
	if err == nil {
		file, err = parseLeases(text)
	}
	switch {
	case errors.Is(err, errLaterVersion):
		return nil, fmt.Errorf("%s: %w; `rm %[1]s` forgets its leases", path, err)
	case err != nil:
		if err := h.Rename(leasesFile, leasesFile+".bad"); err != nil {
			return nil, fmt.Errorf("put %s aside, which cannot be read: %w", path, err)
		}
		slog.Warn("leases of the node before cannot be read, and are put aside", "file", path+".bad", "err", err)
	}
	if file.Networks == nil {
		file.Networks = map[string][]keptLease{}
	}
	return file.Networks, nil
}

var errLaterVersion = errors.New("start the one that wrote it")

// parseLeases reads what is in the file; without an error it is not nil.
func parseLeases(text []byte) (*leasesOnDisk, error) {
	file := new(leasesOnDisk)
	err := json.Unmarshal(text, file)
	switch {
	case file.Version > leasesVersion: // whatever else there is, it may have a meaning
		err = fmt.Errorf("it has version %d, and this fairlead reads version %d: %w", file.Version, leasesVersion, errLaterVersion)
	case err == nil && file.Version != leasesVersion:
		err = fmt.Errorf("it has version %d, and there is none but %d", file.Version, leasesVersion)
	}
	if err != nil {
		return new(leasesOnDisk), err
	}
	return file, nil
}

// restore has a server know the leases of before, as far as they last.
func (d *lenders) restore(l *lender) {
	for _, k := range d.kept[l.name] {
		b := dhcp.Binding{ID: k.ClientID, MAC: k.MAC, Addr: k.IP, Name: k.Hostname}
		if k.Expires != nil {
			left := time.Until(*k.Expires)
			if left <= 0 {
				continue
			}
			b.Until = loop.Clock() + int64(left)
		}
		l.server.Restore(b)
	}
	delete(d.kept, l.name)
}

// leases are those of stations on no container's port: those behind containers
// end with them.
func (l *lender) leases() (list []keptLease) {
	for _, b := range l.server.Bindings() {
		if b.Container != 0 || b.Fixed || b.State != "bound" {
			continue
		}
		k := keptLease{MAC: b.MAC, ClientID: b.ID, IP: b.Addr, Hostname: b.Name}
		if b.Until != 0 {
			until := wallClock(b.Until)
			k.Expires = &until
		}
		list = append(list, k)
	}
	return list
}

// snapshot is what the file has to be now.
func (d *lenders) snapshot() *leasesOnDisk {
	d.saved = d.changes()
	file := &leasesOnDisk{Version: leasesVersion, Networks: map[string][]keptLease{}}
	for name, list := range d.kept { // of networks that are off
		file.Networks[name] = list
	}
	for _, l := range d.of {
		if list := l.leases(); len(list) > 0 {
			file.Networks[l.name] = list
		}
	}
	return file
}

// save writes it down.
func (d *lenders) save(file *leasesOnDisk) {
	if err := d.replaceFile(file); err != nil {
		slog.Error("leases are not written down", "err", err)
	}
}

// replaceFile replaces the file, or removes it when there is nothing to keep.
func (d *lenders) replaceFile(file *leasesOnDisk) error {
	if len(file.Networks) == 0 {
		return d.home.removeFile(leasesFile)
	}
	return d.home.replace(leasesFile, file)
}
