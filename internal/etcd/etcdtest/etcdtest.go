// Package etcdtest gives tests a real etcd that they can stop, start again, cut off and pause.
package etcdtest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"testing"

	"github.com/holdfast-mesh/holdfast/internal/etcd"
)

// Server is an embedded etcd. It is reached through a Path, whose faults the test controls; it starts with one, and
// keeps its address when it is started again.
type Server struct {
	*Path
	t      testing.TB
	cfg    etcd.Config
	target string
	cancel context.CancelFunc
	ended  chan error
	paths  []*Path
}

// Start starts an etcd in a temporary directory; it ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	return StartWithQuota(t, 0)
}

// StartWithQuota is Start with a bound for the etcd's file; 0 is the default.
func StartWithQuota(t testing.TB, quota int64) *Server {
	t.Helper()
	clientPort, peerPort := freePort(t), freePort(t)
	s := &Server{t: t, cfg: etcd.Config{
		Dir: t.TempDir(), QuotaBytes: quota,
		ClientURL: fmt.Sprintf("http://127.0.0.1:%d", clientPort),
		PeerURL:   fmt.Sprintf("http://127.0.0.1:%d", peerPort),
		Logger:    slog.New(slog.DiscardHandler),
	}}
	s.target = fmt.Sprintf("127.0.0.1:%d", clientPort)
	s.Path = s.NewPath()
	s.Restart()
	t.Cleanup(func() {
		s.Stop()
		for _, p := range s.paths {
			p.close()
		}
	})
	return s
}

// NewPath makes another way to the server, with faults of its own.
func (s *Server) NewPath() *Path {
	s.t.Helper()
	p := newPath(s.t, s.target)
	s.paths = append(s.paths, p)
	return p
}

// Stop stops etcd; its data stays.
func (s *Server) Stop() {
	s.t.Helper()
	if s.cancel == nil {
		return
	}
	s.cancel()
	s.cancel = nil
	if err := <-s.ended; err != nil {
		s.t.Errorf("etcd ended: %v", err)
	}
}

// Restart starts etcd on the data that is there.
func (s *Server) Restart() {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan struct{})
	s.cfg.Ready = func() { close(ready) }
	s.ended = make(chan error, 1)
	go func() { s.ended <- etcd.Serve(ctx, s.cfg) }()
	select {
	case <-ready:
		s.cancel = cancel
	case err := <-s.ended:
		cancel()
		s.t.Fatalf("etcd did not start: %v", err)
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
