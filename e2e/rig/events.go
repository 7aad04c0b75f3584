package rig

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// Events is a stream of server-sent events whose data are JSON objects.
type Events struct {
	cancel context.CancelFunc
	// mu guards what follows.
	mu   sync.Mutex
	all  []map[string]any
	err  error
	done chan struct{}
}

// Events opens a stream of server-sent events.
func (m *Mesh) Events(ctx context.Context, address, path string) (*Events, error) {
	ctx, cancel := context.WithCancel(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream")
	// No timeout: the stream lasts.
	resp, err := (&http.Client{Transport: m.rest.http.Transport}).Do(req)
	if err != nil {
		cancel()
		return nil, err
	}
	if kind := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || !strings.HasPrefix(kind, "text/event-stream") {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		resp.Body.Close()
		cancel()
		return nil, fmt.Errorf("GET %s%s: %d %s %s", address, path, resp.StatusCode, kind, body)
	}
	e := &Events{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(e.done)
		defer resp.Body.Close()
		e.read(resp.Body)
	}()
	return e, nil
}

func (e *Events) read(body io.Reader) {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxBody)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data:")
		if !ok {
			continue
		}
		var event map[string]any
		err := json.Unmarshal([]byte(data), &event)
		e.mu.Lock()
		if err != nil {
			e.err = fmt.Errorf("event %q: %w", data, err)
		} else {
			e.all = append(e.all, event)
		}
		e.mu.Unlock()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err == nil {
		e.err = lines.Err()
	}
	if e.err == nil {
		e.err = io.EOF
	}
}

// Seen returns the events so far, and why there will be no more.
func (e *Events) Seen() ([]map[string]any, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]map[string]any(nil), e.all...), e.err
}

// Close ends the stream.
func (e *Events) Close() {
	e.cancel()
	<-e.done
}
