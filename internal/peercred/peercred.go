// Package peercred checks who is at the other end of a Unix socket.
//
// A socket's mode keeps other users out already; this also keeps out whoever got hold of a descriptor, or found a folder
// with the wrong mode. The kernel fills the credentials in when the connection is made; nobody can forge them.
package peercred

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// ErrForeign says that the peer is another user's process.
var ErrForeign = errors.New("peer belongs to another user")

// Check returns nil where the process at the other end of c runs under this process's user id. An error that is not
// ErrForeign means that there is no telling.
func Check(c net.Conn) error {
	unixConn, ok := c.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("peer credentials: %T is not a Unix socket", c)
	}
	raw, err := unixConn.SyscallConn()
	if err != nil {
		return fmt.Errorf("peer credentials: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = credErr
	}
	if err != nil {
		return fmt.Errorf("peer credentials: %w", err)
	}
	return allowed(cred.Uid, uint32(os.Geteuid()))
}

func allowed(peer, self uint32) error {
	if peer != self {
		return fmt.Errorf("%w: uid %d, this process is uid %d", ErrForeign, peer, self)
	}
	return nil
}
