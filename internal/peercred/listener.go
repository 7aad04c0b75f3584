package peercred

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
)

// Listen listens on a Unix socket for this user only: its folder becomes 0700, the socket 0600, and Accept drops connections
// of other users. A socket file that nobody listens on any more is replaced; it is an error if somebody does.
func Listen(path string, log *slog.Logger) (net.Listener, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("listen: another process serves %s", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket == 0 {
		return nil, fmt.Errorf("listen: %s is there and is not a socket", path)
	}
	_ = os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	// Between bind and this the folder's mode keeps others out.
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen: %w", err)
	}
	return &listener{Listener: l, log: log}, nil
}

type listener struct {
	net.Listener
	log *slog.Logger
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if err := Check(c); err != nil {
			l.log.Warn("connection dropped", "socket", l.Addr().String(), "error", err)
			c.Close()
			continue
		}
		return c, nil
	}
}
