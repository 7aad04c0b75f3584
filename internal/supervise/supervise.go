// Package supervise keeps child processes running: it starts them, waits until they are ready, starts them again when
// they die, and stops them, first politely.
//
// No child outlives the process that uses this package, however that one ends. Three things see to it: the kernel kills
// each child when its parent thread is gone (Pdeathsig; so all are started from one locked thread that lives as long as
// the process), every child leads a process group of its own which is killed as a whole when the child is gone, and a
// guard process (see Guard) kills the groups that are left when this process dies without a word.
package supervise

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// Supervisor starts the processes. One per program.
type Supervisor struct {
	log   *slog.Logger
	start chan startRequest
	guard *guardClient

	// mu guards processes.
	mu sync.Mutex
	// +checklocks:mu
	processes map[string]*Process
}

type startRequest struct {
	cmd  *exec.Cmd
	done chan<- error
}

// New returns a supervisor. guardCommand is the command line of a program that calls Guard; empty means none, and then
// only direct children are sure to die with this process.
func New(log *slog.Logger, guardCommand []string) (*Supervisor, error) {
	s := &Supervisor{log: log, start: make(chan startRequest), processes: map[string]*Process{}}
	go s.startLoop()
	if len(guardCommand) > 0 {
		g, err := startGuard(guardCommand)
		if err != nil {
			return nil, fmt.Errorf("start the guard: %w", err)
		}
		s.guard = g
	}
	return s, nil
}

// startLoop starts all children. It never returns: Pdeathsig goes out when the thread that forked ends, so the thread
// is locked and stays.
func (s *Supervisor) startLoop() {
	runtime.LockOSThread()
	for r := range s.start {
		r.done <- r.cmd.Start()
	}
}

// spawn starts cmd as the leader of a new process group, known to the guard.
func (s *Supervisor) spawn(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	done := make(chan error, 1)
	s.start <- startRequest{cmd: cmd, done: done}
	if err := <-done; err != nil {
		return err
	}
	s.guard.add(cmd.Process.Pid)
	return nil
}

// reap kills what is left of a dead child's process group.
func (s *Supervisor) reap(pid int) {
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	s.guard.remove(pid)
}

// Run starts a process and keeps it running until it is stopped. It returns at once: see Process.WaitReady. A name that
// is in use is an error.
func (s *Supervisor) Run(spec Spec) (*Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.processes[spec.Name] != nil {
		return nil, fmt.Errorf("%s: already running", spec.Name)
	}
	p := newProcess(s, spec)
	s.processes[spec.Name] = p
	go p.run()
	return p, nil
}

func (s *Supervisor) forget(p *Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.processes[p.spec.Name] == p {
		delete(s.processes, p.spec.Name)
	}
}

// Close ends the guard. All processes must have been stopped.
func (s *Supervisor) Close() {
	s.guard.close()
}

// openLog opens a child's log for appending. One that has grown large is moved aside first.
func openLog(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil && info.Size() > maxLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, fmt.Errorf("rotate log: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}
