package etcdtest

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
)

// Path is a TCP proxy in front of a server.
type Path struct {
	// Endpoint is the address to dial.
	Endpoint string

	t        testing.TB
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	// mu guards what follows; gate is signalled when a pause ends.
	mu       sync.Mutex
	gate     *sync.Cond
	requests bool
	answers  bool
	closed   bool
	conns    map[net.Conn]bool
}

// Pause lets no more bytes through, in either direction, until Resume: what a stopped process or a lost network does.
func (p *Path) Pause() { p.pause(true, true) }

// PauseAnswers lets requests through but no answers, until Resume.
func (p *Path) PauseAnswers() { p.pause(false, true) }

// Resume ends Pause and PauseAnswers.
func (p *Path) Resume() { p.pause(false, false) }

// Break ends all connections; what is held back by a pause is lost with them.
func (p *Path) Break() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// Dial makes a client that is connected, and closed with the test.
func (p *Path) Dial() *etcd.Client {
	p.t.Helper()
	return Dial(p.t, etcd.ClientConfig{Endpoints: []string{p.Endpoint}})
}

// Dial makes a client that is connected, and closed with the test.
func Dial(t testing.TB, cfg etcd.ClientConfig) *etcd.Client {
	t.Helper()
	c, err := etcd.Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	for deadline := time.After(20 * time.Second); ; {
		changed := c.Changed()
		if c.Up() {
			return c
		}
		select {
		case <-changed:
		case <-deadline:
			_, err := c.Get(t.Context(), "/")
			t.Fatalf("no connection to etcd in 20 s: %v", err)
		}
	}
}

func newPath(t testing.TB, target string) *Path {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Path{Endpoint: l.Addr().String(), t: t, listener: l, target: target, conns: map[net.Conn]bool{}}
	p.gate = sync.NewCond(&p.mu)
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(c) })
		}
	})
	return p
}

func (p *Path) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	closed := p.closed
	p.conns[client], p.conns[server] = true, true
	p.mu.Unlock()
	if closed {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { p.copy(server, client, &p.requests) })
	both.Go(func() { p.copy(client, server, &p.answers) })
	both.Wait()
	p.mu.Lock()
	delete(p.conns, client)
	delete(p.conns, server)
	p.mu.Unlock()
}

func (p *Path) copy(to, from net.Conn, paused *bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		for *paused && !p.closed {
			p.gate.Wait()
		}
		p.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *Path) pause(requests, answers bool) {
	p.mu.Lock()
	p.requests, p.answers = requests, answers
	p.mu.Unlock()
	p.gate.Broadcast()
}

func (p *Path) close() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.closed = true
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.gate.Broadcast()
	p.wg.Wait()
}
