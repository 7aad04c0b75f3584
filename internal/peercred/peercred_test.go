package peercred

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAllowed(t *testing.T) {
	if err := allowed(7, 7); err != nil {
		t.Error(err)
	}
	for _, peer := range []uint32{0, 8} {
		if err := allowed(peer, 7); !errors.Is(err, ErrForeign) {
			t.Errorf("uid %d: got %v", peer, err)
		}
	}
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "d", "s.sock")
	l, err := Listen(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v, want %v", p, info, err, want)
		}
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if err := Check(accepted); err != nil {
		t.Errorf("own process: %v", err)
	}
	if _, err := Listen(path, nil); err == nil {
		t.Error("listened twice")
	}
	// What a killed process left behind is replaced.
	l.(*listener).Listener.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	l, err = Listen(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, nil); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file in the way: %v", err)
	}
}

func TestOtherConnections(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if err := Check(a); err == nil || errors.Is(err, ErrForeign) {
		t.Errorf("a pipe: got %v", err)
	}
}
