package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"fairlead/node/api"
	"fairlead/node/box"
)

// maxConnections bounds what clients hold open at once: each costs a
// descriptor and a goroutine. Waiting and streaming clients hold theirs long.
// Where descriptors are few, share says the bound.
const maxConnections = 1024

// A handler answers one route: what it returns is encoded, unless it has
// written or taken the connection itself (then it returns nil and no error).
type handler func(w http.ResponseWriter, r *http.Request) (any, error)

// handlers says who answers which of api.Routes.
func (n *Node) handlers() map[string]handler {
	return map[string]handler{
		"GET /v1/version":      n.getVersion,
		"GET /v1/openapi.json": n.getOpenAPI,
		"POST /v1/up":          n.postUp,
		"POST /v1/down":        n.postDown,
		"POST /v1/replace":     n.long(n.postReplace),

		"GET /v1/containers":              n.getContainers,
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

		"GET /v1/containers/{id}/ports":    n.one(n.getPorts),
		"POST /v1/containers/{id}/ports":   n.one(n.postPorts),
		"DELETE /v1/containers/{id}/ports": n.one(n.deletePorts),

		"GET /v1/uplinks":           n.getUplinks,
		"POST /v1/uplinks":          n.postUplinks,
		"POST /v1/uplinks/check":    n.postUplinksCheck,
		"POST /v1/uplinks/host":     n.postHost,
		"DELETE /v1/uplinks/{name}": n.deleteUplink,

		"POST /v1/listeners": n.postListeners,

		"GET /v1/networks":                   n.getNetworks,
		"POST /v1/networks":                  n.postNetworks,
		"GET /v1/networks/{name}":            n.getNetwork,
		"POST /v1/networks/{name}":           n.postNetwork,
		"POST /v1/networks/{name}/host-link": n.postHostLink, "DELETE /v1/networks/{name}/host-link": n.deleteHostLink,
		"DELETE /v1/networks/{name}": n.deleteNetwork,

		"POST /v1/networks/{name}/connect":    n.postConnect,
		"POST /v1/networks/{name}/disconnect": n.postDisconnect,

		"GET /v1/switches": n.getSwitches,
		"GET /v1/macs":     n.getMACs,
		"POST /v1/macs":    n.postMACs,
		"DELETE /v1/macs":  n.deleteMACs,
		"GET /v1/arp":      n.getARP,
		"POST /v1/arp":     n.postARP,
		"DELETE /v1/arp":   n.deleteARP,

		"DELETE /v1/macs/{mac}": n.deleteMAC,
		"DELETE /v1/arp/{ip}":   n.deleteNeighbour,
		"GET /v1/drops":         n.getDrops,
		"GET /v1/leases":        n.getLeases,
		"GET /v1/nat":           n.getNAT,
		"GET /v1/flows":         n.inTurn(n.getFlows),
		"GET /v1/rules":         n.getRules,
		"GET /v1/routes":        n.getRoutes,
		"GET /v1/names":         n.getNames,
		"GET /v1/trace":         n.long(n.getTrace),
		"GET /v1/check":         n.getCheck,

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
		Handler: fatal(n.inPace(mux)),
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, conn)
		},
		ReadHeaderTimeout: 10 * time.Second,
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
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{}) // that of the answer before
		out, err := h(w, r)
		switch {
		case err != nil:
			answerError(w, err)
		case out != nil:
			answer(w, out)
		}
	})
}

// inPace has requests come no faster than they may, and counts them as use of the node.
func (n *Node) inPace(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.use(1)
		defer n.use(-1)
		n.pace.begin(r.Context())
		began := time.Now()
		h.ServeHTTP(w, r)
		n.pace.end(time.Since(began))
	})
}

// long marks a handler that goes on until somebody ends it: a node that is replaced
// does not wait for it.
func (n *Node) long(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) (any, error) {
		n.mu.Lock()
		n.watching++
		n.mu.Unlock()
		defer func() {
			n.mu.Lock()
			n.watching--
			n.mu.Unlock()
		}()
		return h(w, r)
	}
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
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(api.Error{Message: err.Error()})
}

// maxHeader bounds the bytes of a request's header.
const maxHeader = 64 << 10

// bodyWithin is how long a client may take to send a body: a slow one must not
// keep its connection from others for ever.
const bodyWithin = 10 * time.Second

// answerWithin is how long a client may take to read its answer, which the node
// holds for him until then.
const answerWithin = time.Minute

// maxLongAnswers bounds those of 100 MB that are made at the same time: all flows
// there may be, as text.
const maxLongAnswers = 2

// inTurn has few requests be answered at a time. It is for answers that are as
// long as a table is; a client that waits is not told to wait longer than others.
func (n *Node) inTurn(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) (any, error) {
		ctx, cancel := context.WithTimeout(r.Context(), bodyWithin)
		defer cancel()
		select {
		case n.longAnswers <- struct{}{}:
		case <-ctx.Done():
			return nil, fail(http.StatusTooManyRequests, "others are still being told what %s has; try again", r.URL.Path)
		}
		defer func() { <-n.longAnswers }()
		out, err := h(w, r)
		if err == nil {
			answer(w, out)
		}
		return nil, err
	}
}

// answer writes what a handler returned.
func answer(w http.ResponseWriter, out any) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerWithin)) // fails only for a connection that has none
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out) // fails only when the client has left
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
	fds, err := api.ReceiveMessage(peer.UnixConn, message)
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

// controlSocket makes the control socket, which has no name yet. A node that has locked
// itself in makes no unix socket any more, so it has this one from before.
func controlSocket() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "control socket"), nil
}

// listen gives the control socket its name, for us alone. One that is there was left
// behind by a node that is dead: we hold its lock. The file stays the caller's.
func listen(socket *os.File, path string) (*controlListener, error) {
	fd := int(socket.Fd())
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	old := syscall.Umask(0o177)
	err := unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	syscall.Umask(old)
	if err == nil {
		err = unix.Listen(fd, math.MaxUint16) // or net.core.somaxconn
	}
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	return listenerOf(socket)
}

// listenerOf is the control socket that a file is of, which stays the caller's.
func listenerOf(file *os.File) (*controlListener, error) {
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	control, ok := l.(*net.UnixListener)
	if !ok {
		_ = l.Close()
		return nil, errors.New("what was handed over as the control socket is none")
	}
	return newControlListener(control), nil
}

func newControlListener(l *net.UnixListener) *controlListener {
	l.SetUnlinkOnClose(false) // by its path it may be another node's by then
	_, connections, _ := share()
	c := &controlListener{
		UnixListener: l, slots: make(chan struct{}, connections), refusals: make(chan struct{}, maxRefusals),
		arrivals: newPace(), each: max(2, connections/4), of: make(map[int]int),
	}
	return c
}

// A gate is open, or closed until somebody opens it.
type gate struct {
	reached, opened chan struct{}
	reach           sync.Once
}

// newGate makes one that is closed, and that nobody stands at.
func newGate() *gate { return &gate{reached: make(chan struct{}), opened: make(chan struct{})} }

// pause has connections wait in the kernel's line until resume is called. reached says
// that none is between the line and its slot.
func (l *controlListener) pause() (resume func(), reached bool) {
	g := newGate()
	l.open.Store(g)
	_ = l.SetDeadline(time.Unix(1, 0))
	resume = sync.OnceFunc(func() {
		_ = l.SetDeadline(time.Time{})
		close(g.opened)
	})
	select {
	case <-g.reached:
		return resume, true
	case <-time.After(100 * time.Millisecond): // it waits for a slot
		return resume, false
	}
}

// A controlListener accepts the connections of peers that may ask, and no more
// than slots has room for at once; further ones wait in the kernel's backlog.
type controlListener struct {
	*net.UnixListener
	slots, refusals chan struct{}
	arrivals        *pace                // a connection costs the least a request does
	open            atomic.Pointer[gate] // see pause; nil before the first time

	// One process that leaks connections, or floods us with them, keeps nobody
	// else out: of is how many each has, at most each, by its number.
	each int
	mu   sync.Mutex
	of   map[int]int

	// Of Accept alone.
	warned time.Time // when a refusal was last logged
	unsaid int       // refusals since then
}

// Accept refuses whoever is not the node's user in the node's user namespace
// before he gets one of the slots: a container runs under our uid and may
// reach the socket, so the uid alone says nothing.
func (l *controlListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			g := l.open.Load()
			g.reach.Do(func() { close(g.reached) })
			<-g.opened
			continue
		} else if err != nil {
			return nil, err
		}
		pid, err := peerOf(conn)
		if err == nil {
			err = l.count(pid)
		}
		if err != nil {
			l.refuse(conn, err)
			continue
		}
		l.slots <- struct{}{}
		l.arrivals.begin(context.Background())
		return &controlConn{UnixConn: conn, listener: l, pid: pid}, nil
	}
}

func peerOf(conn *net.UnixConn) (pid int, refused error) {
	err := onDescriptor(conn, func(fd int) { pid, refused = box.SamePeer(fd) })
	return pid, errors.Join(err, refused)
}

// count takes a connection of a process into account, unless it has its share.
func (l *controlListener) count(pid int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of[pid] >= l.each {
		return fmt.Errorf("refused: process %d has %d connections, which is all one may have", pid, l.each)
	}
	l.of[pid]++
	return nil
}

// leave gives the place of a connection back.
func (l *controlListener) leave(pid int) {
	l.mu.Lock()
	if l.of[pid]--; l.of[pid] == 0 {
		delete(l.of, pid)
	}
	l.mu.Unlock()
	<-l.slots
}

// onDescriptor calls fn with the descriptor of a connection.
func onDescriptor(conn *net.UnixConn, fn func(fd int)) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { fn(int(fd)) })
}

// maxRefusals bounds the peers that are told at the same time why they are
// refused. Whoever comes beside them is cut off.
const maxRefusals = 16

// refuse sends a peer away, and logs it, but not more than once a second: a
// container may knock ten thousand times in one.
func (l *controlListener) refuse(conn *net.UnixConn, reason error) {
	if now := time.Now(); now.Sub(l.warned) >= time.Second {
		slog.Warn("refused a peer", "err", reason, "others_since_the_last", l.unsaid)
		l.warned, l.unsaid = now, 0
	} else {
		l.unsaid++
	}
	select {
	case l.refusals <- struct{}{}:
		go func() {
			answerRefused(conn, reason)
			<-l.refusals
		}()
	default:
		_ = conn.Close()
	}
}

// answerRefused answers in HTTP, whatever was asked. It waits a second for the
// request: to a peer that still writes, a socket that is closed is a broken
// pipe, and it never reads the reason.
func answerRefused(conn *net.UnixConn, reason error) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := conn.Read(make([]byte, 4096)); err != nil {
		return
	}
	text, _ := json.Marshal(api.Error{Message: reason.Error()})
	fmt.Fprintf(conn, "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		len(text), text)
}

// A controlConn gives its slot back when it is closed.
type controlConn struct {
	*net.UnixConn
	listener *controlListener
	pid      int
	once     sync.Once
}

func (c *controlConn) Close() error {
	c.once.Do(func() { c.listener.leave(c.pid) })
	return c.UnixConn.Close()
}
