// Package file watches the two files that a local mesh's control plane lives on, the user's YAML and the supervisor's
// mesh.json, and hands on each new content, parsed or with the reason why it can't be.
//
// It keeps nothing: what to do when a file is broken (go on with the last good content) is the caller's decision.
package file

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/holdfast-mesh/holdfast/controlplane/api/v1alpha1"
	"github.com/holdfast-mesh/holdfast/internal/mesh"
)

// Event is a new content of one of the files: exactly one field is set, or the error with which of the two it is about.
type Event struct {
	Config *v1alpha1.Config
	// Source is the text that Config was parsed from.
	Source   []byte
	Topology *mesh.Topology
	// ConfigErr is why the YAML was refused, TopologyErr why mesh.json was.
	ConfigErr, TopologyErr error
}

// Watch calls emit for the present content of each file, and again at each change, until ctx is done. emit runs on this
// goroutine.
func Watch(ctx context.Context, config, topology string, emit func(Event)) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch configuration: %w", err)
	}
	defer watcher.Close()
	// Folders, not files: an editor replaces the file, and with it what was watched. A folder that can't be watched is
	// looked at every now and then.
	for _, dir := range []string{filepath.Dir(config), filepath.Dir(topology)} {
		_ = watcher.Add(dir)
	}
	c, t := &watched{path: config}, &watched{path: topology}
	check := func() {
		if data, err, changed := c.read(); changed {
			emit(configEvent(config, data, err))
		}
		if _, err, changed := t.read(); changed {
			emit(topologyEvent(topology, err))
		}
	}
	check()
	again := time.NewTicker(recheck)
	defer again.Stop()
	quiet := time.NewTimer(debounce)
	quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-watcher.Events:
			if !ok {
				return errors.New("watch configuration: the watcher is closed")
			}
			if e.Name == filepath.Clean(config) || e.Name == filepath.Clean(topology) {
				quiet.Reset(debounce)
			}
		case <-watcher.Errors:
			// What was missed is found by the ticker.
		case <-quiet.C:
			check()
		case <-again.C:
			check()
		}
	}
}

func configEvent(path string, data []byte, err error) Event {
	if err != nil {
		return Event{ConfigErr: fmt.Errorf("read configuration: %w", err)}
	}
	c, err := v1alpha1.Parse(path, data)
	if err != nil {
		return Event{ConfigErr: err}
	}
	return Event{Config: c, Source: data}
}

func topologyEvent(path string, err error) Event {
	if err != nil {
		return Event{TopologyErr: fmt.Errorf("read topology: %w", err)}
	}
	t, err := mesh.Read(path)
	if err != nil {
		return Event{TopologyErr: err}
	}
	return Event{Topology: t}
}

// watched is a file's last content.
type watched struct {
	path  string
	known bool
	data  []byte
	err   string
}

// read returns the file's content, and whether it, or the reason why it can't be read, is new.
func (w *watched) read() (data []byte, err error, changed bool) {
	data, err = os.ReadFile(w.path)
	reason := ""
	if err != nil {
		reason = err.Error()
	}
	changed = !w.known || reason != w.err || !bytes.Equal(data, w.data)
	w.known, w.data, w.err = true, data, reason
	return data, err, changed
}
