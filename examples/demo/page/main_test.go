package main

import (
	"io/fs"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func get(t *testing.T, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	files, err := fs.Sub(static, "static")
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	handler(files).ServeHTTP(w, httptest.NewRequest(method, path, nil))
	return w
}

func TestFiles(t *testing.T) {
	for _, c := range []struct {
		method, path string
		code         int
		kind         string
	}{
		{"GET", "/", http.StatusOK, "text/html"},
		{"HEAD", "/", http.StatusOK, "text/html"},
		{"GET", "/app.js", http.StatusOK, "javascript"},
		{"GET", "/style.css", http.StatusOK, "text/css"},
		{"GET", "/icon.svg", http.StatusOK, "image/svg+xml"},
		{"GET", "/v1/nothing", http.StatusNotFound, "text/plain"},
		{"GET", "/../main.go", http.StatusNotFound, "text/plain"},
		{"POST", "/", http.StatusMethodNotAllowed, "text/plain"},
	} {
		w := get(t, c.method, c.path)
		if w.Code != c.code || !strings.Contains(w.Header().Get("Content-Type"), c.kind) {
			t.Errorf("%s %s: got %d %s, want %d %s", c.method, c.path, w.Code, w.Header().Get("Content-Type"), c.code, c.kind)
		}
	}
}

// The content security policy forbids what isn't a file of ours, so nothing in the page may need it.
func TestPageNeedsOnlyItsOwnFiles(t *testing.T) {
	page := get(t, "GET", "/").Body.String()
	for _, forbidden := range []string{"http://", "https://", " style=", " onclick=", "<style"} {
		if strings.Contains(page, forbidden) {
			t.Errorf("page contains %q", forbidden)
		}
	}
	for _, link := range regexp.MustCompile(`(?:src|href)="([^"#]+)"`).FindAllStringSubmatch(page, -1) {
		if w := get(t, "GET", "/"+strings.TrimPrefix(link[1], "/")); w.Code != http.StatusOK {
			t.Errorf("page links to %s: got %d", link[1], w.Code)
		}
	}
}
