package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"fairlead/node/api"
	"fairlead/node/box"
)

// A handler answers one route: what it returns is encoded, unless it has
// written or taken the connection itself (then it returns nil and no error).
type handler func(w http.ResponseWriter, r *http.Request) (any, error)

// handlers says who answers which of api.Routes.
func (n *Node) handlers() map[string]handler {
	return map[string]handler{
		"GET /v1/version":      n.getVersion,
		"GET /v1/openapi.json": n.inTurn(n.getOpenAPI),
		"POST /v1/up":          n.postUp,
		"POST /v1/down":        n.postDown,
		"POST /v1/replace":     n.long(n.postReplace),

		"GET /v1/containers":              n.inTurn(n.getContainers),
		"POST /v1/containers":             n.postContainers,
		"GET /v1/containers/{id}":         n.one(n.inspect),
		"DELETE /v1/containers/{id}":      n.one(n.remove),
		"POST /v1/containers/{id}/attach": n.one(n.postAttach),
		"POST /v1/containers/{id}/exec":   n.one(n.postExec),
		"POST /v1/containers/{id}/kill":   n.one(n.postKill),
		"POST /v1/containers/{id}/stop":   n.long(n.one(n.postStop)),
		"POST /v1/containers/{id}/rename": n.one(n.postRename),
		"GET /v1/containers/{id}/wait":    n.long(n.one(n.getWait)),
		"GET /v1/containers/{id}/logs":    n.long(n.one(n.getLogs)),

		"GET /v1/containers/{id}/ports":    n.inTurn(n.one(n.getPorts)),
		"POST /v1/containers/{id}/ports":   n.inTurns(n.moves, 1, n.one(n.postPorts)),
		"DELETE /v1/containers/{id}/ports": n.inTurns(n.moves, 1, n.one(n.deletePorts)),

		"GET /v1/uplinks":           n.getUplinks,
		"POST /v1/uplinks":          n.postUplinks,
		"POST /v1/uplinks/check":    n.postUplinksCheck,
		"POST /v1/uplinks/host":     n.movesPorts(n.postHost),
		"DELETE /v1/uplinks/{name}": n.movesPorts(n.deleteUplink),

		"POST /v1/listeners": n.postListeners,

		"GET /v1/networks":                   n.inTurn(n.getNetworks),
		"POST /v1/networks":                  n.postNetworks,
		"GET /v1/networks/{name}":            n.getNetwork,
		"POST /v1/networks/{name}":           n.movesPorts(n.postNetwork),
		"POST /v1/networks/{name}/host-link": n.postHostLink, "DELETE /v1/networks/{name}/host-link": n.deleteHostLink,
		"DELETE /v1/networks/{name}": n.deleteNetwork,

		"POST /v1/networks/{name}/connect":    n.movesPorts(n.postConnect),
		"POST /v1/networks/{name}/disconnect": n.movesPorts(n.postDisconnect),

		"GET /v1/switches": n.inTurn(n.getSwitches),
		"GET /v1/macs":     n.inTurn(n.getMACs),
		"POST /v1/macs":    n.postMACs,
		"DELETE /v1/macs":  n.deleteMACs,
		"GET /v1/arp":      n.inTurn(n.getARP),
		"POST /v1/arp":     n.postARP,
		"DELETE /v1/arp":   n.deleteARP,

		"DELETE /v1/macs/{mac}": n.deleteMAC,
		"DELETE /v1/arp/{ip}":   n.deleteNeighbour,
		"GET /v1/drops":         n.inTurn(n.getDrops),
		"GET /v1/leases":        n.inTurn(n.getLeases),
		"GET /v1/nat":           n.inTurn(n.getNAT),
		"GET /v1/flows":         n.getFlows,
		"GET /v1/rules":         n.inTurn(n.getRules),
		"GET /v1/routes":        n.inTurn(n.getRoutes),
		"GET /v1/names":         n.inTurn(n.getNames),
		"GET /v1/trace":         n.long(n.getTrace),
		"GET /v1/check":         n.inTurn(n.getCheck),

		"GET /v1/rules/added":             n.getAddedRules,
		"POST /v1/rules":                  n.postRules,
		"DELETE /v1/rules/{number}":       n.deleteRule,
		"POST /v1/containers/{id}/update": n.one(n.postUpdate),
	}
}

// newServer serves api.Routes.
func (n *Node) newServer() *http.Server {
	mux := http.NewServeMux()
	handlers := n.handlers()
	for _, r := range api.Routes {
		key := r.Method + " " + r.Path
		mux.Handle(key, n.serve(handlers[key]))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		answerError(w, fail(http.StatusNotFound, "no such request: %s %s; GET /v1/openapi.json lists them", r.Method, r.URL.Path))
	})
	return &http.Server{
		Handler:                      fatal(n.inPace(mux)),
		DisableGeneralOptionsHandler: true, // nobody would pay for what it answers
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			if c, ok := conn.(*controlConn); ok {
				c.inPace(n.pace)
			}
			return context.WithValue(ctx, connKey{}, conn)
		},
		ReadHeaderTimeout: 10 * time.Second,
		WriteTimeout:      answerWithin, // from the header on; see giveTime
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn),
	}
}

// connKey is where the context of a request has the connection it came by.
type connKey struct{}

// clientOf returns a pidfd of the process that asks, the caller's to close.
func clientOf(r *http.Request) (pidfd int, err error) {
	conn, ok := r.Context().Value(connKey{}).(*controlConn)
	if !ok {
		return -1, errors.New("this connection is none of the control socket's")
	}
	if cerr := onDescriptor(conn.UnixConn, func(fd int) { pidfd, err = box.Peer(fd) }); cerr != nil {
		return -1, cerr
	}
	return pidfd, err
}

// serve turns a handler into an http.Handler.
func (n *Node) serve(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out, err := h(w, r)
		switch {
		case err != nil:
			answerError(w, err)
		case out != nil:
			answer(w, out)
		}
	})
}

// use counts a request in or out. While one runs, so that somebody watches or
// waits, the node does not end by itself.
func (n *Node) use(change int) {
	n.mu.Lock()
	n.requests += change
	n.lastUse = time.Now()
	n.mu.Unlock()
}

// done is the answer of a handler that has nothing to say.
var done = struct{}{}

func answerError(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	var s statusError
	if errors.As(err, &s) {
		status = s.status
	}
	text, _ := json.Marshal(api.Error{Message: err.Error()}) // of a string it does not fail
	answerText(w, status, text)
}

// maxHeader bounds the bytes of a request's header.
const maxHeader = 64 << 10

// bodyWithin is how long a client may take to send a body: a slow one must not
// keep its connection from others for ever.
const bodyWithin = 10 * time.Second

// answerWithin is how long a client may take to read its answer, which the node
// holds for him until then. Of one that goes on it is each piece.
const answerWithin = time.Minute

// giveTime gives a client answerWithin, from now on, to read what is written next.
func giveTime(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerWithin)) // fails only for a connection that has none
}

// answer writes what a handler returned.
func answer(w http.ResponseWriter, out any) {
	text, err := json.Marshal(out)
	if err != nil {
		answerError(w, err)
		return
	}
	answerText(w, http.StatusOK, text)
}

// answerText writes an answer of which nothing more follows.
func answerText(w http.ResponseWriter, status int, text []byte) {
	giveTime(w)
	text = append(text, '\n')
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = w.Write(text) // fails only when the client has left
}

// body decodes a request's body; unknown fields are refused by name.
func body(w http.ResponseWriter, r *http.Request, into any) error {
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(time.Now().Add(bodyWithin)) // fails only for a connection that has none
	if err := api.Decode(r.Body, into); err != nil {
		return statusError{http.StatusBadRequest, err} // the rest has what is left of the time
	}
	_ = conn.SetReadDeadline(time.Time{})
	return nil
}

// one looks up the container a path names.
func (n *Node) one(h func(http.ResponseWriter, *http.Request, *container) (any, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) (any, error) {
		c, err := n.find(r.PathValue("id"))
		if err != nil {
			return nil, err
		}
		return h(w, r, c)
	}
}

// upgrade answers 101, takes the connection and receives the one message with
// descriptors it will carry. fn's error is the answer.
func upgrade(w http.ResponseWriter, r *http.Request, message any, fn func(fds []int) error) (any, error) {
	peer, err := hijack(w, r)
	if peer == nil {
		return nil, err
	}
	defer peer.Close()
	fds, err := api.ReceiveMessage(peer, message)
	if err == nil {
		err = fn(fds)
	}
	answer := api.Done{}
	if err != nil {
		answer.Error = err.Error()
	}
	_ = peer.SetDeadline(time.Now().Add(bodyWithin)) // fn may have waited for others for longer than that
	_ = api.SendMessage(peer.UnixConn, answer, nil)  // fails only when the client has left
	return nil, nil
}

// hijack answers 101 and takes the connection; nil when nobody is there to go on.
func hijack(w http.ResponseWriter, r *http.Request) (*controlConn, error) {
	if r.Header.Get("Upgrade") != api.Protocol {
		return nil, fail(http.StatusUpgradeRequired, "%s takes descriptors: ask for Upgrade: %s", r.URL.Path, api.Protocol)
	}
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		return nil, errors.New("this connection cannot be upgraded")
	}
	settle(r) // from here on it waits, for descriptors and for others
	conn, buffered, err := hijacker.Hijack()
	if err != nil {
		return nil, err
	}
	peer, ok := conn.(*controlConn)
	if !ok || buffered.Reader.Buffered() > 0 {
		_ = conn.Close()
		return nil, nil // the client spoke before 101; its descriptors are lost already
	}
	_ = peer.SetDeadline(time.Now().Add(bodyWithin))
	if _, err := fmt.Fprintf(peer, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", api.Protocol); err != nil {
		_ = peer.Close()
		return nil, nil //nolint:nilerr // the client has left, nobody hears the error
	}
	return peer, nil
}
