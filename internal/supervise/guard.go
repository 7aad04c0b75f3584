package supervise

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Guard is the whole life of the guard process: it reads "+pid" and "-pid" lines about process groups from r, and when r
// ends it kills the groups that are left. It ignores the signals that end its parent.
func Guard(r io.Reader) {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	groups := map[int]bool{}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, maxGuardLine), maxGuardLine)
	for lines.Scan() {
		pid, err := strconv.Atoi(strings.TrimLeft(lines.Text(), "+-"))
		if err != nil || pid <= 1 {
			continue
		}
		if strings.HasPrefix(lines.Text(), "+") {
			groups[pid] = true
		} else {
			delete(groups, pid)
		}
	}
	for pid := range groups {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
}

// guardClient is the parent's side of a guard. A nil one does nothing.
type guardClient struct {
	command []string
	// mu guards the pipe, the guard's process and the groups that it was told of.
	mu sync.Mutex
	// +checklocks:mu
	pipe *os.File
	// +checklocks:mu
	cmd *exec.Cmd
	// +checklocks:mu
	groups map[int]bool
}

func startGuard(command []string) (*guardClient, error) {
	g := &guardClient{command: command, groups: map[int]bool{}}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.startLocked(); err != nil {
		return nil, err
	}
	return g, nil
}

// +checklocks:g.mu
func (g *guardClient) startLocked() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command(g.command[0], g.command[1:]...)
	cmd.Stdin = r
	// A session of its own: a terminal's Ctrl-C and hang-up do not reach it. No Pdeathsig: it must outlive its parent.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		w.Close()
		return err
	}
	g.pipe, g.cmd = w, cmd
	for pid := range g.groups {
		fmt.Fprintf(w, "+%d\n", pid)
	}
	return nil
}

func (g *guardClient) add(pid int)    { g.tell('+', pid) }
func (g *guardClient) remove(pid int) { g.tell('-', pid) }

func (g *guardClient) tell(sign rune, pid int) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if sign == '+' {
		g.groups[pid] = true
	} else {
		delete(g.groups, pid)
	}
	if g.pipe == nil {
		return
	}
	if _, err := fmt.Fprintf(g.pipe, "%c%d\n", sign, pid); err != nil {
		// Somebody killed the guard: start another, which is told of all groups.
		g.endLocked()
		_ = g.startLocked()
	}
}

// +checklocks:g.mu
func (g *guardClient) endLocked() {
	if g.pipe == nil {
		return
	}
	g.pipe.Close()
	_ = g.cmd.Wait()
	g.pipe, g.cmd = nil, nil
}

func (g *guardClient) close() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.endLocked()
}
