package localmesh

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
)

// page is the page for people, on a port. A nil one does nothing.
type page struct {
	url    string
	server *http.Server
	done   chan struct{}
}

func servePage(m *Mesh) (*page, error) {
	if m.opts.Page == nil {
		return nil, nil
	}
	address, err := m.ports.page()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("page: %w", err)
	}
	token := rand.Text()
	p := &page{
		// A fragment: the browser keeps it to itself.
		url:    fmt.Sprintf("http://%s/#token=%s", address, token),
		server: &http.Server{Handler: m.opts.Page(m, address, token), ReadHeaderTimeout: probeTimeout, IdleTimeout: pageIdle},
		done:   make(chan struct{}),
	}
	go func() {
		defer close(p.done)
		_ = p.server.Serve(l)
	}()
	return p, nil
}

func (p *page) address() string {
	if p == nil {
		return ""
	}
	return p.url
}

func (p *page) close() {
	if p != nil {
		_ = p.server.Close()
		<-p.done
	}
}

// Nodes lists the nodes' names.
func (m *Mesh) Nodes() []string { return m.nodeNames() }

// Admin makes a request to the control plane's admin API.
func (m *Mesh) Admin(ctx context.Context, method, path string, in, out any) error {
	return Client{Paths: m.paths}.Admin(ctx, method, path, in, out)
}
