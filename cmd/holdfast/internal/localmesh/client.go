package localmesh

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"syscall"
)

// ErrNotRunning says that no mesh runs for a data directory.
var ErrNotRunning = errors.New("no mesh is running")

// Client asks a running mesh's processes over their sockets. It is for the command line.
type Client struct {
	Paths Paths
}

// ProxyList is the control plane's GET /v1/proxies.
type ProxyList struct {
	Proxies []Proxy `json:"proxies"`
}

// Proxy is one Envoy as the control plane sees it.
type Proxy struct {
	Name      string      `json:"name"`
	Connected bool        `json:"connected"`
	Types     []ProxyType `json:"types"`
}

// ProxyType is what an Envoy has of one xDS type.
type ProxyType struct {
	Type    string `json:"type"`
	Version string `json:"version"`
	// State is Acked, NACKED or PENDING.
	State string `json:"state"`
	// Error is the reason of a NACK.
	Error string `json:"error,omitempty"`
}

// Acked is the state of what an Envoy has taken, nacked of what it refused.
const (
	Acked  = "ACKED"
	nacked = "NACKED"
)

// Configuration is the control plane's GET /v1/config.
type Configuration struct {
	// Error is why the last file was refused, empty if it was not.
	Error string `json:"error"`
	// Nodes are those that the Envoys' present configuration was made for.
	Nodes []string `json:"nodes"`
	// Services are the configured ones.
	Services []ConfiguredService `json:"services"`
}

// ConfiguredService is one StatefulService, and what keeps it from being as the file says.
type ConfiguredService struct {
	Name    string `json:"name"`
	Service string `json:"service"`
	// State is "ok", "waiting" (for descriptors), "stale" (as it was before) or "refused".
	State string `json:"state"`
	Error string `json:"error,omitempty"`
}

// Troubles says of each service that is not as the file says what it is and why.
func (c *Configuration) Troubles() []string {
	var out []string
	for _, s := range c.Services {
		if s.Error != "" {
			out = append(out, fmt.Sprintf("%s (%s) is %s: %s", s.Name, s.Service, s.State, s.Error))
		}
	}
	return out
}

// Status asks the supervisor what runs.
func (c Client) Status(ctx context.Context) (*Status, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	s := &Status{}
	return s, c.json(ctx, http.MethodGet, c.Paths.UpSocket(), "/v1/status", nil, s)
}

// Scale brings the mesh to n nodes and waits for it.
func (c Client) Scale(ctx context.Context, n int) (*Status, error) {
	s := &Status{}
	return s, c.json(ctx, http.MethodPost, c.Paths.UpSocket(), "/v1/scale", ScaleRequest{Nodes: n}, s)
}

// Admin makes a request to the control plane's admin API.
func (c Client) Admin(ctx context.Context, method, path string, in, out any) error {
	return c.json(ctx, method, c.Paths.AdminSocket(), path, in, out)
}

// AdminStream opens a GET of the control plane's admin API whose answer comes in pieces. The caller closes it.
func (c Client) AdminStream(ctx context.Context, path string) (io.ReadCloser, error) {
	return c.open(ctx, http.MethodGet, c.Paths.AdminSocket(), path, nil)
}

// Get returns the body of a GET at one of the mesh's sockets.
func (c Client) Get(ctx context.Context, socket, path string) ([]byte, error) {
	return call(ctx, http.MethodGet, socket, path)
}

func (c Client) json(ctx context.Context, method, socket, path string, in, out any) error {
	body, err := c.open(ctx, method, socket, path, in)
	if err != nil {
		return err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, maxProbeBody))
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(data, out)
}

// open makes a request and returns the body of a 200.
func (c Client) open(ctx context.Context, method, socket, path string, in any) (io.ReadCloser, error) {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://unix"+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := unixClient(socket).Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w for the data directory %s: start one with `holdfast up`, or name its --data-dir", ErrNotRunning, c.Paths.Data)
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusOK:
		return resp.Body, nil
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxProbeBody))
	if err != nil {
		return nil, err
	}
	var e ErrorBody
	if json.Unmarshal(data, &e) == nil && e.Error != "" {
		return nil, errors.New(e.Error)
	}
	return nil, fmt.Errorf("%s: %s", resp.Status, bytes.TrimSpace(data))
}
