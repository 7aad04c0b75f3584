package stateclient

import (
	"errors"
	"net"
	"syscall"

	"github.com/holdfast-mesh/holdfast/internal/frame"
)

// rawConn is the connection for writes that never wait; nil where it has none.
func rawConn(conn net.Conn) syscall.RawConn {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// direct sends a call on its caller's own thread: one system call, where handing it to the writer costs a thread's wake-up
// as well. The caller has set busy for it and holds no lock. It never blocks: what the socket doesn't take is the writer's.
func (s *session) direct(k *call) {
	ended := false
	defer func() {
		if !ended {
			// A panic: nobody would ever write again.
			s.conn.Close()
		}
	}()
	var frames []byte
	frames, err := frame.Append(make([]byte, 0, k.size+4), k.req)
	if err != nil {
		s.mu.Lock()
		late := s.end(k)
		s.idle()
		s.mu.Unlock()
		ended = true
		s.c.async(func() { k.finish(s.c, nil, notApplied(codeInvalidArgument, "%v", err), late) })
		return
	}
	n, err := tryWrite(s.raw, frames)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		// The store reads whole frames only.
		k.written = n == len(frames)
	case n < len(frames):
		s.rest = frames[n:]
		s.wakeWriter()
		ended = true
	default:
		s.idle()
		ended = true
	}
}

// idle ends a turn of writing. s.mu is held.
func (s *session) idle() {
	s.busy = false
	if len(s.queue) > 0 {
		s.wakeWriter()
	}
}

func (s *session) wakeWriter() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// tryWrite writes what the socket takes now.
func tryWrite(raw syscall.RawConn, b []byte) (n int, err error) {
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		for n < len(b) {
			m, err := syscall.Write(int(fd), b[n:])
			switch {
			case errors.Is(err, syscall.EINTR):
			case errors.Is(err, syscall.EAGAIN):
				return true
			case err != nil:
				failed = err
				return true
			default:
				n += m
			}
		}
		// To say false would be to wait.
		return true
	})
	return n, errors.Join(err, failed)
}
