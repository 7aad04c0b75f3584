package stores

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// Launch starts store i and waits for nothing.
func (c *Cluster) Launch(i int) error {
	s := c.stores[i]
	// A killed store leaves its socket; nobody shall take it for the new one's.
	_ = os.Remove(s.socket)
	if err := os.MkdirAll(s.Data, 0o700); err != nil {
		return err
	}
	line := append(append([]string{}, c.opts.Prefix...),
		c.opts.Binary, "store", "--node", s.Name, "--data", s.Data, "--run-dir", c.run, "--gossip", s.Gossip)
	if c.opts.TLS {
		line = append(line, "--peer", s.Peer)
	}
	if c.opts.Faults {
		line = append(line, "--faults")
	}
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = append(os.Environ(), c.opts.Env...)
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	exited, err := rig.StartTied(cmd)
	if err != nil {
		return fmt.Errorf("start the store of %s: %w", s.Name, err)
	}
	s.cmd, s.exited = cmd, exited
	s.Starts++
	return nil
}

// waitUp waits until store i answers its status.
func (c *Cluster) waitUp(ctx context.Context, i int) error {
	s := c.stores[i]
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		conn, err := c.Dial(i)
		if err == nil {
			_, err = conn.Status(ctx)
			conn.Close()
			if err == nil {
				return nil
			}
		}
		select {
		case <-s.exited:
			return fmt.Errorf("the store of %s ended: %w\n%s", s.Name, err, s.log.tail(20))
		case <-ctx.Done():
			return fmt.Errorf("the store of %s does not answer: %w", s.Name, err)
		case <-ticker.C:
		}
	}
}

// Running tells whether store i was started and has not ended.
func (c *Cluster) Running(i int) bool {
	s := c.stores[i]
	if s.exited == nil {
		return false
	}
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

// Crash is kill -9 of store i; Gone waits for its end.
func (c *Cluster) Crash(i int) error { return c.signal(i, syscall.SIGKILL) }

// Kill is kill -9 of store i; it returns when the process is gone.
func (c *Cluster) Kill(i int) error {
	if err := c.Crash(i); err != nil {
		return err
	}
	c.Gone(i)
	return nil
}

// Gone waits until the process of store i, which was started, has ended.
func (c *Cluster) Gone(i int) { <-c.stores[i].exited }

// Stop ends store i in order.
func (c *Cluster) Stop(i int) error {
	if err := c.signal(i, syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-c.stores[i].exited:
		return nil
	case <-time.After(stopWait):
		return errors.Join(fmt.Errorf("the store of %s did not stop in %v", c.stores[i].Name, stopWait), c.Kill(i))
	}
}

// Pause stops store i's process until Resume.
func (c *Cluster) Pause(i int) error { return c.signal(i, syscall.SIGSTOP) }

// Resume lets a paused store go on.
func (c *Cluster) Resume(i int) error { return c.signal(i, syscall.SIGCONT) }

func (c *Cluster) signal(i int, s syscall.Signal) error {
	if !c.Running(i) {
		return fmt.Errorf("the store of %s does not run", c.stores[i].Name)
	}
	return c.stores[i].cmd.Process.Signal(s)
}

// Wipe removes the data of store i, which must not run.
func (c *Cluster) Wipe(i int) error {
	if c.Running(i) {
		return fmt.Errorf("the store of %s runs", c.stores[i].Name)
	}
	return os.RemoveAll(c.stores[i].Data)
}

// Close kills the stores and removes their folder.
func (c *Cluster) Close() error {
	for i, s := range c.stores {
		if c.Running(i) {
			_ = s.cmd.Process.Signal(syscall.SIGKILL)
		}
	}
	for _, s := range c.stores {
		if s.exited != nil {
			<-s.exited
		}
	}
	return os.RemoveAll(c.folder)
}

// Logs is the end of what each store logged.
func (c *Cluster) Logs(lines int) string {
	var b bytes.Buffer
	for _, s := range c.stores {
		fmt.Fprintf(&b, "==> %s\n%s\n", s.Name, s.log.tail(lines))
	}
	return b.String()
}
