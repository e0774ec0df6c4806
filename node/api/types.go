package api

import "time"

// Version is the version of this interface, as in its paths (/v1/…).
const Version = 1

// Error is the body of every answer that is not 2xx.
type Error struct {
	Message string `json:"error"`

	Status int `json:"-"` // that of the answer; 0 is none that came as one
}

func (e *Error) Error() string { return e.Message }

// VersionInfo answers GET /v1/version.
type VersionInfo struct {
	Version    string    `json:"version"`
	API        int       `json:"api"`
	Go         string    `json:"go"`
	Kernel     string    `json:"kernel"`
	Pid        int       `json:"pid"`
	Dir        string    `json:"dir"`
	Stays      bool      `json:"stays"` // started by `up`: outlives its last container
	Started    time.Time `json:"started"`
	Containers int       `json:"containers"`
	Sockets    Sockets   `json:"sockets"`
	LockIn     LockIn    `json:"lock_in"`
}

// LockIn is what the node has given up; see docs/security.md.
type LockIn struct {
	Mode         string   `json:"mode"`                   // on, strict or off
	Calls        int      `json:"calls,omitempty"`        // system calls that are left; 0 is all
	Landlock     int      `json:"landlock,omitempty"`     // ABI that confines it to its files; 0 is not
	Capabilities []string `json:"capabilities,omitempty"` // that are left
	Lacks        []string `json:"lacks,omitempty"`        // what this kernel could not take, in words
}

// Sockets is how many sockets of the host the node has for its containers, and
// how many it may have.
type Sockets struct {
	Descriptors int `json:"descriptors"` // that the node may have (ulimit -n)

	Used          int    `json:"used"` // by connections
	Most          int    `json:"most"`
	MostEach      int    `json:"most_each"` // of one container
	Listening     int    `json:"listening"` // for published ports
	MostListening int    `json:"most_listening"`
	Refused       uint64 `json:"refused"` // connections for which there was none
}

// The kinds of CreateRequest.Foreign that are no namespaces.
const (
	ForeignInterface = "if"   // a real interface, which stays where it is
	ForeignVeth      = "veth" // one end of a pair, which moves to an empty namespace
)

// CreateRequest is the body of POST /v1/containers: what the caller wants. The
// node reserves a name and an address; the container exists once its links
// arrive at /v1/containers/ID/attach.
type CreateRequest struct {
	Name     string   `json:"name,omitempty"`     // empty: the node makes one up
	Hostname string   `json:"hostname,omitempty"` // empty: the id's first 12 digits
	Network  string   `json:"network,omitempty"`  // default, none, host, container:NAME
	IP       string   `json:"ip,omitempty"`
	MAC      string   `json:"mac,omitempty"`
	Command  []string `json:"command"`
	Env      []string `json:"env,omitempty"`
	Workdir  string   `json:"workdir,omitempty"`
	Rootfs   string   `json:"rootfs,omitempty"`
	TTY      bool     `json:"tty,omitempty"`
	Detached bool     `json:"detached,omitempty"`

	// Labels are whatever the caller wants to find it by.
	Labels map[string]string `json:"labels,omitempty"`

	// Links are what it calls others on its first network: NAME:ALIAS.
	Links []string `json:"links,omitempty"`

	// RateIn and RateOut are how much it may be sent and send: 100mbit.
	RateIn  string `json:"rate_in,omitempty"`
	RateOut string `json:"rate_out,omitempty"`

	// Networks are those it is connected to, instead of Network, IP and MAC, in the
	// order of their interfaces.
	Networks []EndpointRequest `json:"networks,omitempty"`

	// Publish has ports as `-p` has them; Expose names ports that PublishAll
	// publishes somewhere free.
	Publish    []string `json:"publish,omitempty"`
	PublishAll bool     `json:"publish_all,omitempty"`
	Expose     []string `json:"expose,omitempty"`

	// Foreign names a namespace somebody else made (netns:PATH, pid:N): the
	// container has no init of ours, and ends when the namespace does. Or it names
	// what is no container but a port all the same, and ends with its interface:
	// if:NAME, veth:NAME.
	Foreign string `json:"foreign,omitempty"`

	// Egress is asked beside that of the network; both have to agree.
	Egress *Egress `json:"egress,omitempty"`

	// Options of the link: offload=off, isolated=on, vlan=10.
	Options map[string]string `json:"options,omitempty"`
}

// Created answers POST /v1/containers: all the client needs to make the
// namespaces.
type Created struct {
	ID       string     `json:"id"`
	Name     string     `json:"name"`
	Hostname string     `json:"hostname"`
	Mode     string     `json:"mode"` // bridge, none, host, shared, foreign
	Link     *Interface `json:"link,omitempty"`
	SharePid int        `json:"share_pid,omitempty"` // mode shared: the init to join

	// Env are variables that tell of its links.
	Env []string `json:"env,omitempty"`

	// Nowhere is as in Ports: what it publishes leads nowhere.
	Nowhere bool `json:"nowhere,omitempty"`

	// Files to put over those of /etc, and the log of a detached container.
	Hosts      string `json:"hosts,omitempty"`
	ResolvConf string `json:"resolv_conf,omitempty"`
	HostnameAt string `json:"hostname_at,omitempty"`
	Log        string `json:"log,omitempty"`
	LogBytes   int64  `json:"log_bytes,omitempty"`
	ExitAt     string `json:"exit_at,omitempty"` // where init writes the exit status
}

// Interface is how a container's link has to look from inside.
type Interface struct {
	Name    string `json:"name"`
	MAC     string `json:"mac"`
	Address string `json:"address"` // with the prefix length: 172.17.0.2/16
	MTU     int    `json:"mtu"`
	// Gateway is the default route's router; empty where that does not lead here.
	Gateway string   `json:"gateway,omitempty"`
	Routes  []string `json:"routes,omitempty"` // SUBNET@ROUTER; see ParseRoute
	// Resolver answers at 127.0.0.11; empty is nobody.
	Resolver string `json:"resolver,omitempty"`
	Textbook bool   `json:"textbook,omitempty"` // plain frames, no offloads
	Veth     bool   `json:"veth,omitempty"`     // one end of a veth pair
}

// Attach is the first message on an upgraded /v1/containers/ID/attach. With it
// travel the descriptors it names, in the order of Descriptors.
type Attach struct {
	// Descriptors says what each descriptor is: tap (or the packet socket that
	// stands for it, of a veth), init (a pidfd) and channel.
	Descriptors []string `json:"descriptors"`
	Pid         int      `json:"pid,omitempty"`
	// Interface is what the link is called and numbered inside its namespace.
	Interface string `json:"interface,omitempty"`
	Index     int    `json:"index,omitempty"`
	// Netns is the inode of its network namespace. The node is confined too much
	// to see for itself.
	Netns uint64 `json:"netns,omitempty"`
	// PeerNetns is what the kernel inside calls the namespace of a veth's other
	// end, link-netnsid; -1 of a TAP.
	PeerNetns int `json:"peer_netns,omitempty"`
	// KeptChannel and KeptLink are the init's own copies of channel and tap, by their
	// numbers there, for a node after this one; 0 is none.
	KeptChannel int `json:"kept_channel,omitempty"`
	KeptLink    int `json:"kept_link,omitempty"`
}

// Exec is the first message on an upgraded /v1/containers/ID/exec. With it
// travel stdin, stdout, stderr and the caller's session with the init.
type Exec struct {
	Command []string `json:"command"`
	Env     []string `json:"env,omitempty"`
	Workdir string   `json:"workdir,omitempty"`
	TTY     bool     `json:"tty,omitempty"`
}

// Done is the node's answer on an upgraded connection: an empty Error means it
// has taken the descriptors.
type Done struct {
	Error string `json:"error,omitempty"`
}

// SignalRequest is the body of POST /v1/containers/ID/kill and …/stop.
type SignalRequest struct {
	Signal string `json:"signal,omitempty"` // kill: default KILL; stop: default TERM
	// Timeout is how many seconds stop waits before it kills; default 10.
	Timeout *int `json:"timeout,omitempty"`
}

// RenameRequest is the body of POST /v1/containers/ID/rename.
type RenameRequest struct {
	Name string `json:"name"`
}

// Container is one line of GET /v1/containers.
type Container struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Command  []string  `json:"command"`
	Created  time.Time `json:"created"`
	Status   string    `json:"status"`        // created, running, unreachable
	Why      string    `json:"why,omitempty"` // it is unreachable
	Pid      int       `json:"pid,omitempty"`
	Network  string    `json:"network"`
	IP       string    `json:"ip,omitempty"`
	MAC      string    `json:"mac,omitempty"`
	Hostname string    `json:"hostname"`
	Detached bool      `json:"detached"`
	Foreign  string    `json:"foreign,omitempty"`
	Ports    []string  `json:"ports,omitempty"` // as docker ps: 0.0.0.0:8080->80/tcp

	Labels map[string]string `json:"labels,omitempty"`
}

// Inspect answers GET /v1/containers/ID, in the shape of `docker inspect`.
type Inspect struct {
	ID              string `json:"Id"`
	Name            string
	Created         time.Time
	Path            string
	Args            []string
	State           InspectState
	Config          InspectConfig
	HostConfig      InspectHostConfig
	NetworkSettings InspectNetworkSettings
	HostsPath       string
	ResolvConfPath  string
	HostnamePath    string
	LogPath         string
}

// InspectState is docker inspect's State.
type InspectState struct {
	Status    string
	Running   bool
	Pid       int
	StartedAt time.Time
}

// InspectConfig is docker inspect's Config.
type InspectConfig struct {
	Hostname     string
	Tty          bool
	Env          []string
	Cmd          []string
	WorkingDir   string
	ExposedPorts map[string]InspectNothing `json:",omitempty"` // by 80/tcp
	Labels       map[string]string
}

// InspectNothing is what docker inspect has where the key says it all.
type InspectNothing struct{}

// InspectHostConfig is docker inspect's HostConfig.
type InspectHostConfig struct {
	NetworkMode     string
	AutoRemove      bool
	PortBindings    map[string][]InspectBinding // as asked for, by 80/tcp
	PublishAllPorts bool
	Links           []string `json:",omitempty"` // as docker inspect: /web1:/client/db

	// What Docker has not.
	RateIn, RateOut string `json:",omitempty"`
}

// InspectBinding is where a port is published. A HostPort of PortBindings is
// empty when any would do.
type InspectBinding struct {
	HostIP   string `json:"HostIp"`
	HostPort string
}

// InspectNetworkSettings is docker inspect's NetworkSettings.
type InspectNetworkSettings struct {
	IPAddress   string
	IPPrefixLen int
	Gateway     string
	MacAddress  string
	// Ports are by 80/tcp; one that is exposed and not published has null.
	Ports    map[string][]InspectBinding
	Networks map[string]InspectNetwork
}

// InspectNetwork is one of NetworkSettings.Networks.
type InspectNetwork struct {
	IPAMConfig           *InspectIPAM // what was asked for; null is nothing
	Links                []string
	Aliases              []string
	DriverOpts           map[string]string
	GwPriority           int
	NetworkID            string
	EndpointID           string
	Gateway              string
	IPAddress            string
	IPPrefixLen          int
	MacAddress           string
	GlobalIPv6Address    string
	LinkLocalIPv6Address string
	DNSNames             []string
}

// InspectIPAM is the address a container was to have.
type InspectIPAM struct {
	IPv4Address string `json:",omitempty"`
}

// Switch is one network's switch: an element of GET /v1/switches.
type Switch struct {
	Network  string `json:"network"`
	BridgeID string `json:"bridge_id"`
	Subnet   string `json:"subnet"`
	Gateway  string `json:"gateway"`
	MTU      int    `json:"mtu"`
	Hub      bool   `json:"hub"`
	// LoopGuard says whether ports that are joined elsewhere are looked for: yes or no.
	LoopGuard string  `json:"loop_guard"`
	Ageing    float64 `json:"ageing_seconds"`
	// Egress is where its containers may open connections to: all, none, internet
	// or allow:FILE.
	Egress       string `json:"egress"`
	HostLoopback bool   `json:"host_loopback"`
	HostLink     string `json:"host_link,omitempty"` // the interface of the host's own link
	Ports        []Port `json:"ports"`
	Totals       Counts `json:"totals"` // ports that are gone included
}

// Port is one port of a switch.
type Port struct {
	Port      int    `json:"port"` // its number on the switch
	Container string `json:"container"`
	ID        string `json:"id"` // of the container
	MAC       string `json:"mac"`
	IP        string `json:"ip,omitempty"`
	// RateIn and RateOut are how much it may be sent and send: 100mbit.
	RateIn  string `json:"rate_in,omitempty"`
	RateOut string `json:"rate_out,omitempty"`
	// Kind is tap, wire or veth. The first two have no other end that is an
	// interface, and that of the third lies in a namespace of its own. Or it is if:
	// an interface of a host, with a LAN behind it.
	Kind      string `json:"kind"`
	Interface string `json:"interface"` // inside
	Index     int    `json:"index"`     // inside
	HostIface string `json:"host_interface,omitempty"`
	// Of a veth, what `ip link` says inside behind the name: @ifN and link-netnsid;
	// N is also peer_ifindex of `ethtool -S`.
	Peer      int    `json:"peer,omitempty"`
	LinkNetns int    `json:"link_netns,omitempty"`
	Netns     uint64 `json:"netns"` // inode of the network namespace
	Pid       int    `json:"pid"`
	Offload   string `json:"offload"`
	Guard     bool   `json:"guard"`
	Isolated  bool   `json:"isolated"`
	// VLANs are those the port is in, as the option of its link says: vlan=10,
	// trunk=10,20,native=5; empty is all that no port says it is in.
	VLANs string `json:"vlans,omitempty"`
	// Blocked is for how many seconds more the loop guard blocks the port, because what
	// left by port BlockedFrom came back by it.
	Blocked     float64 `json:"blocked_seconds,omitempty"`
	BlockedFrom int     `json:"blocked_from,omitempty"`
	// SentNothing is for how many seconds more nothing is sent to the port, because a
	// delivery to it took long.
	SentNothing float64 `json:"sent_nothing_seconds,omitempty"`
	// Lost is how many frames came by the link and were never read: there was no
	// room for them, or no words.
	Lost   uint64 `json:"lost,omitempty"`
	Counts Counts `json:"counts"`
}

// Counts are a port's counters in frames; a segmentation-offload frame is one
// frame of several segments.
type Counts struct {
	Read            uint64            `json:"read"`
	ReadBytes       uint64            `json:"read_bytes"`
	ReadSegments    uint64            `json:"read_segments"`
	Unicast         uint64            `json:"unicast"`
	Flooded         uint64            `json:"flooded"`
	Fanout          uint64            `json:"fanout"`
	Gateway         uint64            `json:"gateway"`
	Held            uint64            `json:"held"`    // for ARP or a first fragment
	Resumed         uint64            `json:"resumed"` // and went on, to be counted again
	Split           uint64            `json:"split"`   // further fragments of what was cut
	Originated      uint64            `json:"originated"`
	Written         uint64            `json:"written"`
	WrittenBytes    uint64            `json:"written_bytes"`
	WrittenSegments uint64            `json:"written_segments"`
	Joined          uint64            `json:"joined"`            // of those written, in the train of another
	JoinedBytes     uint64            `json:"joined_bytes"`      // of their headers, which the other end has not got
	Paused          uint64            `json:"paused"`            // times it was not read for a while: it had sent more than its rate, or had its share of a worker's time
	Dropped         map[string]uint64 `json:"dropped,omitempty"` // by reason
	Failed          map[string]uint64 `json:"failed,omitempty"`  // by reason
}

// Drop is one line of GET /v1/drops.
type Drop struct {
	Network   string `json:"network"`
	Port      int    `json:"port"`
	Container string `json:"container,omitempty"`
	Reason    string `json:"reason"`
	// Direction is in: refused frames of this port; out: copies it did not take; of
	// host sockets also altered: what went out otherwise, and lost.
	Direction string    `json:"direction"`
	Count     uint64    `json:"count"`
	Last      time.Time `json:"last"`
	Why       string    `json:"why"`
	Try       string    `json:"try,omitempty"`
}

// TraceLine is one line of GET /v1/trace, a stream of JSON lines.
type TraceLine struct {
	Time     time.Time `json:"time"`
	Network  string    `json:"network"`
	In       string    `json:"in"` // container name
	Out      []string  `json:"out"`
	Copies   int       `json:"copies"`
	Bytes    int       `json:"bytes"`
	Segments int       `json:"segments"`
	Summary  string    `json:"summary"`
	Verdict  string    `json:"verdict"`
	Reason   string    `json:"reason"`
	Answer   string    `json:"answer,omitempty"` // what the gateway sent back
	Line     string    `json:"line"`             // all of it for people
	Walk     []string  `json:"walk"`             // step by step
	Lost     uint64    `json:"lost,omitempty"`   // records lost before this one
}

// DownRequest is the body of POST /v1/down.
type DownRequest struct {
	All bool `json:"all"` // stop the containers too
}

// DownAnswer is the answer: the process whose end is the node's.
type DownAnswer struct {
	Pid int `json:"pid"`
}

// UpRequest is the body of POST /v1/up: keep the node after its last container
// and, while there is none, set up the default network.
type UpRequest struct {
	BIP     string            `json:"bip,omitempty"` // gateway address and length: 172.17.42.1/16
	Options map[string]string `json:"options,omitempty"`

	// As in NetworkRequest: that may be changed while containers are there.
	Egress       *Egress `json:"egress,omitempty"`
	HostLoopback *bool   `json:"host_loopback,omitempty"`

	// Names is where this host may ask for names of containers: on, off, ADDRESS or
	// ADDRESS:PORT. Empty leaves it as it is.
	Names string `json:"names,omitempty"`
}

// Check answers GET /v1/check: the conservation law, held against the
// counters. It is exact when nothing is in flight.
type Check struct {
	Violations []string `json:"violations"`
}

// Exit answers GET /v1/containers/ID/wait.
type Exit struct {
	Code int `json:"code"`
}
