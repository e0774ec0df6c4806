package main

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"fairlead/node/api"
)

func newPublish() *cobra.Command {
	var address string
	var ports []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "publish [OPTIONS] CONTAINER [PORT...]",
		Short: "Let the outside reach ports of a running container",
		Long: `Let the outside reach ports of a running container, written as for run -p:
[ADDRESS:][PORT:]CONTAINERPORT[/udp], with ranges. It prints where they are,
as port does. With --address a whole address of an uplink becomes the
container's, in both directions; the uplink must have it as a further one
(addr= in --uplink).`,
		Example: `  fairlead publish web 8080:80
  fairlead publish dns 53:53/udp 127.0.0.1:5353:53/udp
  fairlead publish --address 192.0.2.50 mail`,
		Args: atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := api.PublishRequest{Publish: append(ports, args[1:]...), Address: address}
			if err := checkPorts(cmd, request.Publish, address); err != nil {
				return err
			}
			var published api.Ports
			if err := client().Post(cmd.Context(), containerPath(args[0], "ports"), request, &published); err != nil {
				return about(args[0], err)
			}
			if published.Nowhere {
				adviseOnPorts(cmd.ErrOrStderr(), args[0], &published)
			}
			return printPorts(cmd.OutOrStdout(), &published, asJSON)
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&ports, "publish", "p", nil, "One more `PORT`, as with run")
	f.StringVar(&address, "address", "", "Make this `ADDRESS` of an uplink the container's own")
	f.BoolVar(&asJSON, "json", false, "Print JSON")
	return cmd
}

func newUnpublish() *cobra.Command {
	var address string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "unpublish [OPTIONS] CONTAINER [PORT...]",
		Short: "Take published ports of a container back",
		Long: `Take published ports of a container back, and end the connections to them. A
port inside (80, 53/udp) is taken back wherever it is published, 8080:80 and
192.0.2.2:8080:80 in that place only. It prints what is gone.`,
		Example: `  fairlead unpublish web 80
  fairlead unpublish web 8080:80
  fairlead unpublish --address 192.0.2.50 mail`,
		Args: atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkPorts(cmd, args[1:], address); err != nil {
				return err
			}
			q := url.Values{"port": args[1:]}
			if address != "" {
				q.Set("address", address)
			}
			var gone api.Ports
			if err := client().Delete(cmd.Context(), containerPath(args[0], "ports")+"?"+q.Encode(), &gone); err != nil {
				return about(args[0], err)
			}
			return printPorts(cmd.OutOrStdout(), &gone, asJSON)
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "address", "", "Take this `ADDRESS` back")
	f.BoolVar(&asJSON, "json", false, "Print JSON")
	return cmd
}

// checkPorts finds what is wrong with the ports of a call.
func checkPorts(cmd *cobra.Command, ports []string, address string) error {
	if len(ports) == 0 && address == "" {
		return wrongCall(cmd, "there is neither a port nor --address: %s", cmd.UseLine())
	}
	for _, arg := range ports {
		if _, err := api.ParsePublish(arg); err != nil {
			return wrongCall(cmd, "%v", err)
		}
	}
	return nil
}

func newPort() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "port [OPTIONS] CONTAINER [PRIVATE_PORT[/PROTO]]",
		Short: "Print where a container's published ports are, as docker port",
		Long: `Print where a container's published ports are, as docker port: at the addresses
of the uplinks, or 0.0.0.0 while there is none. When nobody listens on one
inside, it says so, and which ports are listened on.`,
		Example: `  fairlead port web
  fairlead port web 80
  fairlead port dns 53/udp`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := atLeast(1)(cmd, args); err != nil {
				return err
			}
			return atMost(2)(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var private string
			if len(args) > 1 {
				port, proto, err := api.ParsePrivate(args[1])
				if err != nil {
					return wrongCall(cmd, "%v", err)
				}
				private = fmt.Sprintf("%d/%s", port, proto)
			}
			var have api.Ports
			if err := client().Get(cmd.Context(), containerPath(args[0], "ports"), &have); err != nil {
				return about(args[0], err)
			}
			defer adviseOnPorts(cmd.ErrOrStderr(), args[0], &have)
			if private == "" {
				return printPorts(cmd.OutOrStdout(), &have, asJSON)
			}
			return printPort(cmd, args[0], private, &have, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print JSON")
	return cmd
}

// printPort prints where one port of a container is.
func printPort(cmd *cobra.Command, name, private string, have *api.Ports, asJSON bool) error {
	all := have.Published
	have.Published = []api.PublishedPort{}
	for _, p := range all {
		if privateOf(&p) == private {
			have.Published = append(have.Published, p)
		}
	}
	if len(have.Published) == 0 && len(have.Addresses) == 0 {
		return fmt.Errorf("No public port '%s' published for %s; `fairlead publish %[2]s %[1]s` publishes it", private, name) //nolint:staticcheck // Docker's words
	}
	out := cmd.OutOrStdout()
	if asJSON {
		return printJSON(out, have)
	}
	for i := range have.Published {
		for _, place := range places(&have.Published[i]) {
			fmt.Fprintln(out, place)
		}
	}
	port, _, _ := strings.Cut(private, "/")
	for _, a := range have.Addresses {
		fmt.Fprintln(out, net.JoinHostPort(a, port))
	}
	return nil
}

// printPorts prints ports as docker port does.
func printPorts(out io.Writer, ports *api.Ports, asJSON bool) error {
	if asJSON {
		return printJSON(out, ports)
	}
	for i := range ports.Published {
		p := &ports.Published[i]
		for _, place := range places(p) {
			fmt.Fprintf(out, "%s -> %s\n", privateOf(p), place)
		}
	}
	for _, a := range ports.Addresses {
		fmt.Fprintf(out, "all -> %s\n", a)
	}
	return nil
}

func privateOf(p *api.PublishedPort) string { return fmt.Sprintf("%d/%s", p.Port, p.Proto) }

// places are where a published port is reached, or where it would be.
func places(p *api.PublishedPort) (list []string) {
	port := strconv.Itoa(int(p.HostPort))
	for _, a := range p.Reached {
		list = append(list, net.JoinHostPort(a, port))
	}
	if list == nil {
		list = []string{net.JoinHostPort(p.HostIP, port)}
	}
	return list
}

// maxAdvice is how many ports one sentence of advice names.
const maxAdvice = 5

// adviseOnPorts says what keeps published ports from being reached.
func adviseOnPorts(stderr io.Writer, name string, have *api.Ports) {
	var silent, loopback, local []string
	for i := range have.Published {
		p := &have.Published[i]
		if ip := net.ParseIP(p.HostIP); ip.IsLoopback() && len(p.Reached) == 0 {
			local = append(local, net.JoinHostPort(p.HostIP, strconv.Itoa(int(p.HostPort))))
		}
		if !have.ListenersKnown {
			continue
		}
		switch heard, inside := listens(have.Listeners, p); {
		case !heard && inside:
			loopback = append(loopback, privateOf(p))
		case !heard:
			silent = append(silent, privateOf(p))
		}
	}
	if len(have.Lost) > 0 {
		fmt.Fprintf(stderr, "fairlead: %s: no uplink has it any more, so it leads nowhere; give it to one again: addr=%s\n", enumerate(have.Lost), have.Lost[0])
	}
	if have.Nowhere {
		fmt.Fprintf(stderr, "fairlead: warning: published ports of %s lead nowhere: no network of it leads outside; `fairlead network connect default %[1]s` connects one that does\n", name)
		return
	}
	if len(local) > 0 {
		fmt.Fprintf(stderr, "fairlead: %s: this host's own loopback; nobody comes from there by an uplink that has an address of its own\n", enumerate(local))
	}
	if len(loopback) > 0 {
		fmt.Fprintf(stderr, "fairlead: %s is listened on in %s, but on 127.0.0.1 only, where nobody comes from outside; have the program listen on 0.0.0.0\n", enumerate(loopback), name)
	}
	if len(silent) > 0 {
		fmt.Fprintf(stderr, "fairlead: nobody listens on %s in %s; %s\n", enumerate(silent), name, listenedOn(have.Listeners))
	}
}

// listens reports whether somebody hears a published port, or only from inside.
func listens(listeners []api.Listener, p *api.PublishedPort) (heard, inside bool) {
	for _, l := range listeners {
		if l.Proto != p.Proto || l.Port != p.Port {
			continue
		}
		if net.ParseIP(l.Address).IsLoopback() {
			inside = true
		} else {
			heard = true
		}
	}
	return heard, inside
}

// listenedOn says which ports are.
func listenedOn(listeners []api.Listener) string {
	var list []string
	seen := map[string]bool{}
	for _, l := range listeners {
		word := fmt.Sprintf("%d/%s", l.Port, l.Proto)
		if net.ParseIP(l.Address).IsLoopback() {
			word += " (on loopback)"
		}
		if !seen[word] {
			seen[word] = true
			list = append(list, word)
		}
	}
	switch len(list) {
	case 0:
		return "it listens on no port at all"
	case 1:
		return "the port that is listened on is " + list[0]
	}
	return "ports that are listened on: " + enumerate(list)
}

// enumerate names some of a list, and how many more there are.
func enumerate(list []string) string {
	if len(list) <= maxAdvice {
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(list[:maxAdvice], ", "), len(list)-maxAdvice)
}
