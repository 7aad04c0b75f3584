package stores

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// Read is how many bytes the process of store i has read so far, from sockets and files.
func (c *Cluster) Read(i int) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", c.stores[i].PID()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "rchar:"); ok {
			return strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
		}
	}
	return 0, fmt.Errorf("process %d has no rchar", c.stores[i].PID())
}

// HTTP calls a path of the HTTP socket of store i, for its metrics and what else it serves there.
func (c *Cluster) HTTP(ctx context.Context, i int, method, path string, body []byte) ([]byte, error) {
	socket := filepath.Join(c.stores[i].folder, "store-http.sock")
	client := &http.Client{Timeout: callTimeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, method, "http://store"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxFrame))
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s of %s: %s %s", method, path, c.stores[i].Name, resp.Status, data)
	}
	return data, err
}

// Cut lets nothing pass any more between two groups of stores, or everything again.
func (c *Cluster) Cut(ctx context.Context, some, others []int) error {
	var problem error
	for _, side := range [][2][]int{{some, others}, {others, some}} {
		names := []string{}
		for _, i := range side[1] {
			names = append(names, c.stores[i].Name)
		}
		for _, i := range side[0] {
			problem = errors.Join(problem, c.cut(ctx, i, names))
		}
	}
	return problem
}

// Heal ends every cut.
func (c *Cluster) Heal(ctx context.Context) error {
	var problem error
	for i := range c.stores {
		if c.Running(i) {
			problem = errors.Join(problem, c.cut(ctx, i, []string{}))
		}
	}
	return problem
}

func (c *Cluster) cut(ctx context.Context, i int, names []string) error {
	body, err := json.Marshal(map[string][]string{"nodes": names})
	if err != nil {
		return err
	}
	_, err = c.HTTP(ctx, i, http.MethodPut, "/v1/cut", body)
	return err
}

// Metric sums the values of a metric of store i over its labels.
func (c *Cluster) Metric(ctx context.Context, i int, name string) (sum float64, err error) {
	data, err := c.HTTP(ctx, i, http.MethodGet, "/metrics", nil)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' '):]), 64)
		if err != nil {
			return 0, fmt.Errorf("metric %q: %w", line, err)
		}
		sum += v
	}
	return sum, nil
}

// logBuffer keeps the end of a log.
type logBuffer struct {
	// mu guards b: output arrives on goroutines of os/exec.
	mu sync.Mutex
	b  []byte
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b = append(l.b, p...)
	if len(l.b) > 2*maxLog {
		l.b = append([]byte(nil), l.b[len(l.b)-maxLog:]...)
	}
	return len(p), nil
}

func (l *logBuffer) tail(lines int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := strings.Split(strings.TrimRight(string(l.b), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return strings.Join(all, "\n")
}
