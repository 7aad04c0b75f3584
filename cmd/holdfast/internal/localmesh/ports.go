package localmesh

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// host is the only address that a local mesh listens on.
const host = "127.0.0.1"

// ports gives out addresses: those that users type are fixed, the others are the next free ones above base+100.
type ports struct {
	base int

	// mu guards what follows.
	mu sync.Mutex
	// +checklocks:mu
	next int
	// kept are addresses that somebody had in an earlier run and will have again.
	// +checklocks:mu
	kept map[string]bool
}

// OptionError is a number out of its range.
type OptionError struct {
	Option     string
	Value, Max int
}

func (e OptionError) Error() string {
	return fmt.Sprintf("%s %d: must be between 1 and %d", e.Option, e.Value, e.Max)
}

func newPorts(base, nodes int) (*ports, error) {
	if base < 1 || base+innerPorts+innerPortRange > 65535 {
		return nil, OptionError{"--port-base", base, 65535 - innerPorts - innerPortRange}
	}
	if nodes < 1 || nodes > MaxNodes {
		return nil, OptionError{"--nodes", nodes, MaxNodes}
	}
	return &ports{base: base, next: base + innerPorts + 1, kept: map[string]bool{}}, nil
}

// ingress is the address of node i (1 is the first), or of the gateway for 0.
func (p *ports) ingress(i int) string { return address(p.base + i) }

func address(port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// page is the address of the page for people: always the same where it is free.
func (p *ports) page() (string, error) {
	if a := address(p.base + innerPorts); checkFree(a) == nil {
		return a, nil
	}
	return p.free()
}

// free returns an address that nobody listens on, neither by TCP nor by UDP.
func (p *ports) free() (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for ; p.next <= p.base+innerPorts+innerPortRange; p.next++ {
		a := address(p.next)
		if !p.kept[a] && checkFree(a) == nil {
			p.next++
			return a, nil
		}
	}
	return "", fmt.Errorf("no free port between %d and %d: use another --port-base", p.base+innerPorts, p.base+innerPorts+innerPortRange)
}

// keep sees to it that free does not give out an address.
func (p *ports) keep(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept[address] = true
}

func checkFree(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	l.Close()
	u, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	return u.Close()
}

// checkIngress says clearly who holds the port that what needs.
func (p *ports) checkIngress(i int, what string) error {
	port := p.base + i
	l, err := net.Listen("tcp", address(port))
	if err == nil {
		return l.Close()
	}
	by := ""
	if pid, name := portHolder(port); pid != 0 {
		by = fmt.Sprintf(" by pid %d (%s)", pid, name)
	}
	return fmt.Errorf("port %d (%s) is taken%s: stop that program, or choose other ports with --port-base", port, what, by)
}

// portHolder finds the process that listens on a TCP port, 0 if it can't be seen.
func portHolder(port int) (pid int, name string) {
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		listeners(table, port, inodes)
	}
	if len(inodes) == 0 {
		return 0, ""
	}
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return 0, ""
	}
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		if err != nil || !inodes[target] {
			continue
		}
		process := strings.Split(fd, "/")[2]
		comm, err := os.ReadFile("/proc/" + process + "/comm")
		if err != nil {
			continue
		}
		pid, err := strconv.Atoi(process)
		if err != nil {
			continue
		}
		return pid, strings.TrimSpace(string(comm))
	}
	return 0, ""
}

// listeners adds the sockets that listen on port in the kernel's table, as /proc/*/fd spells them.
func listeners(table string, port int, into map[string]bool) {
	f, err := os.Open(table)
	if err != nil {
		return
	}
	defer f.Close()
	const listen = "0A"
	suffix := fmt.Sprintf(":%04X", port)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 9 && strings.HasSuffix(fields[1], suffix) && fields[3] == listen {
			into["socket:["+fields[9]+"]"] = true
		}
	}
}
