package main

import (
	"fairlead/node/api"
	"fairlead/node/box"
)

// openWithRights opens the interfaces that uplinks are on, for a plain user who
// was lent CAP_NET_RAW for that (setpriv --ambient-caps), and gives the right
// back. A node has none, and answers nobody who has more rights than it: so all
// is opened before anybody is asked. For everybody else it does nothing; the
// caller closes what is opened.
func openWithRights(specs []*api.UplinkSpec) (opened map[string]*box.Uplink, err error) {
	if lent, err := box.LentRights(); err != nil || !lent {
		return nil, err
	}
	opened = make(map[string]*box.Uplink)
	for _, s := range specs {
		if s.Kind != "if" {
			continue
		}
		if opened[s.Name], err = openUplink(s); err != nil {
			delete(opened, s.Name)
			closeUplinks(opened)
			return nil, err
		}
	}
	if err := box.ReturnRights(); err != nil {
		closeUplinks(opened)
		return nil, err
	}
	return opened, nil
}

func closeUplinks(opened map[string]*box.Uplink) {
	for _, u := range opened {
		u.Close()
	}
}
