package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
	"github.com/holdfast-mesh/holdfast/e2e/rig/stores"
)

// redis is a Redis that fsyncs before it answers, on a Unix socket as the store.
type redis struct {
	folder string
	cmd    *exec.Cmd
	exited <-chan struct{}
}

// startRedis starts one, or says why there is none. It is compared with where it is installed, and never needed.
func startRedis(ctx context.Context) (*redis, string) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, "NOT RUN: redis-server is not installed"
	}
	version, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return nil, "NOT RUN: " + err.Error()
	}
	r := &redis{}
	if r.folder, err = os.MkdirTemp("", "hf-redis-"); err != nil {
		return nil, "NOT RUN: " + err.Error()
	}
	r.cmd = exec.Command(path, "--port", "0", "--unixsocket", r.socket(), "--dir", r.folder, "--appendonly", "yes",
		"--appendfsync", "always", "--save", "", "--daemonize", "no")
	if r.exited, err = rig.StartTied(r.cmd); err != nil {
		return nil, "NOT RUN: " + err.Error()
	}
	ctx, cancel := context.WithTimeout(ctx, redisWait)
	defer cancel()
	if err := rig.Poll(ctx, func() error {
		conn, err := net.Dial("unix", r.socket())
		if err == nil {
			err = conn.Close()
		}
		return err
	}); err != nil {
		return nil, "NOT RUN: " + errors.Join(err, r.close()).Error()
	}
	name, _, _ := strings.Cut(string(version), " sha=")
	return r, strings.TrimSpace(name) + ", appendonly yes, appendfsync always"
}

func (r *redis) socket() string { return filepath.Join(r.folder, "redis.sock") }

func (r *redis) close() error {
	_ = r.cmd.Process.Kill()
	<-r.exited
	return os.RemoveAll(r.folder)
}

// rate lets callers send one command over and over, through as many connections as the store's callers have.
func (r *redis) rate(ctx context.Context, command string, keys int, rate *Rate, lasting time.Duration) (*Round, error) {
	conns := make([]*redisConn, min(rate.Callers, maxConnections))
	for i := range conns {
		conn, err := dialRedis(r.socket())
		if err != nil {
			return nil, err
		}
		defer conn.close()
		conns[i] = conn
	}
	return measure(ctx, rate, lasting, func(caller, n int, done func(error)) {
		k := key((caller*keys/rate.Callers + n) % keys)
		args := []string{command, command + k}
		if command == "SET" {
			args = append(args, string(bytes16(uint64(n))))
		}
		conns[caller%len(conns)].send(args, done)
	}), nil
}

// redisConn sends commands and hands on their answers, which come in order.
type redisConn struct {
	net  net.Conn
	gone chan struct{}

	// mu guards the fields below, and orders writes.
	mu      sync.Mutex
	lost    bool
	pending []func(error)
}

func dialRedis(socket string) (*redisConn, error) {
	nc, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	c := &redisConn{net: nc, gone: make(chan struct{})}
	go c.read()
	return c, nil
}

func (c *redisConn) close() {
	c.net.Close()
	<-c.gone
}

func (c *redisConn) send(args []string, done func(error)) {
	b := fmt.Appendf(nil, "*%d\r\n", len(args))
	for _, a := range args {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(a), a)
	}
	c.mu.Lock()
	if c.lost {
		c.mu.Unlock()
		done(stores.ErrLost)
		return
	}
	c.pending = append(c.pending, done)
	_, err := c.net.Write(b)
	c.mu.Unlock()
	if err != nil {
		c.net.Close()
	}
}

func (c *redisConn) read() {
	defer close(c.gone)
	for lines := bufio.NewReader(c.net); ; {
		line, err := lines.ReadString('\n')
		c.mu.Lock()
		if err != nil {
			c.lost = true
			pending := c.pending
			c.mu.Unlock()
			for _, done := range pending {
				done(stores.ErrLost)
			}
			return
		}
		done := c.pending[0]
		c.pending = c.pending[1:]
		c.mu.Unlock()
		if strings.HasPrefix(line, "-") {
			done(errors.New(strings.TrimSpace(line)))
			continue
		}
		done(nil)
	}
}
