package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
)

// Reply is the answer to a REST call.
type Reply struct {
	Status int
	Header http.Header
	Body   []byte
}

// JSON decodes the body.
func (r *Reply) JSON(into any) error {
	if err := json.Unmarshal(r.Body, into); err != nil {
		return fmt.Errorf("decode %q: %w", r.Body, err)
	}
	return nil
}

type restClient struct{ http *http.Client }

func newRESTClient() *restClient {
	return &restClient{http: &http.Client{
		Timeout:   callTimeout,
		Transport: &http.Transport{MaxIdleConnsPerHost: 64},
	}}
}

func (c *restClient) do(method, url string, body any, header http.Header) (*Reply, error) {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(context.Background(), method, url, reader)
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return nil, fmt.Errorf("%s %s: read body: %w", method, url, err)
	}
	return &Reply{Status: resp.StatusCode, Header: resp.Header, Body: data}, nil
}

// Get calls GET path at an address of the mesh.
func (m *Mesh) Get(address, path string) (*Reply, error) {
	return m.rest.do(http.MethodGet, "http://"+address+path, nil, nil)
}

// Post calls POST path with a JSON body.
func (m *Mesh) Post(address, path string, body any) (*Reply, error) {
	return m.rest.do(http.MethodPost, "http://"+address+path, body, nil)
}

// Do is a call with headers.
func (m *Mesh) Do(method, address, path string, body any, header http.Header) (*Reply, error) {
	return m.rest.do(method, "http://"+address+path, body, header)
}

// Raw posts over a transport of the caller's, with the header's names spelt as they are.
func Raw(ctx context.Context, transport http.RoundTripper, url, body string, header http.Header) (*Reply, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header = header
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return nil, fmt.Errorf("%s: read body: %w", url, err)
	}
	return &Reply{Status: resp.StatusCode, Header: resp.Header, Body: data}, nil
}

// GetSocket calls GET path at a Unix socket in the mesh's run folder.
func (m *Mesh) GetSocket(socket, path string) (*Reply, error) {
	folder, err := m.RunFolder()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(folder, socket))
	}}
	defer transport.CloseIdleConnections()
	return (&restClient{http: &http.Client{Timeout: callTimeout, Transport: transport}}).do(http.MethodGet, "http://mesh"+path, nil, nil)
}
