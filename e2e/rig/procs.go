package rig

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// Process is a process of the mesh.
type Process struct {
	PID     int
	Command string
}

// Processes lists the mesh's processes that run now, by the mark in their environment.
func (m *Mesh) Processes() []Process {
	mark := []byte(markVariable + "=" + m.mark)
	var found []Process
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err != nil || !hasEntry(env, mark) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(dir))
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		found = append(found, Process{PID: pid, Command: strings.TrimSpace(strings.ReplaceAll(string(line), "\x00", " "))})
	}
	return found
}

func hasEntry(env, entry []byte) bool {
	for line := range bytes.SplitSeq(env, []byte{0}) {
		if bytes.Equal(line, entry) {
			return true
		}
	}
	return false
}

func describe(list []Process) string {
	parts := make([]string, len(list))
	for i, p := range list {
		parts[i] = fmt.Sprintf("%d %.120s", p.PID, p.Command)
	}
	return strings.Join(parts, "; ")
}

// Kill is kill -9. It refuses what is no process of this mesh.
func (m *Mesh) Kill(pid int) error { return m.signal(pid, syscall.SIGKILL) }

// Pause stops a process until Resume.
func (m *Mesh) Pause(pid int) error { return m.signal(pid, syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (m *Mesh) Resume(pid int) error { return m.signal(pid, syscall.SIGCONT) }

func (m *Mesh) signal(pid int, s syscall.Signal) error {
	for _, p := range m.Processes() {
		if p.PID == pid {
			return syscall.Kill(pid, s)
		}
	}
	return fmt.Errorf("process %d is none of this mesh", pid)
}

// StartTied starts a child that is told to end (SIGTERM) when this process ends, however that happens. The channel is closed
// when the child has ended. The child has a process group of its own: a Ctrl-C at the terminal reaches only this process,
// which then takes down what it started in order.
func StartTied(cmd *exec.Cmd) (exited <-chan struct{}, err error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started, done := make(chan error), make(chan struct{})
	go func() {
		// The kernel watches the thread that started the child, not the process: this one lives as long as the child.
		runtime.LockOSThread()
		defer close(done)
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		_ = cmd.Wait()
	}()
	return done, <-started
}

// RSS is a process's resident memory in bytes.
func RSS(pid int) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("process %d has no VmRSS", pid)
}
