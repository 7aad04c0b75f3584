package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/holdfast-mesh/holdfast/e2e/rig"
)

// pageAddress is the address of the replicas page, with its token.
func pageAddress(t *testing.T, m *rig.Mesh) string {
	t.Helper()
	out, err := m.Run("status", "-o", "json")
	var s struct {
		Page string `json:"page"`
	}
	if err := errors.Join(err, json.Unmarshal([]byte(out), &s)); err != nil || !strings.Contains(s.Page, "/#token=") {
		t.Fatalf("status has no address of the page: %v, %s", err, out)
	}
	return s.Page
}

// In a real browser, on a phone's screen and by the keyboard: somebody cuts the mesh, sees the replicas drift apart, mends
// it and sees them agree.
func TestReplicasPage(t *testing.T) {
	chromium := findChromium(t)
	m := mesh(t)
	key := newKey(t)
	telling(t, m, key)
	must(t)(ask(m, m.Gateway(), key, question))
	page := window(t, browser(t, chromium), pageAddress(t, m)+"&entity="+presentationType+"/"+key)
	t.Cleanup(func() { healed(t, m) })
	do(t, page, "see all agree",
		chromedp.WaitVisible(`#agreement[data-agree="yes"]`, chromedp.ByQuery),
		chromedp.WaitVisible(`#sides[data-sides="1"]`, chromedp.ByQuery))
	var address string
	do(t, page, "read the address", chromedp.Location(&address))
	if strings.Contains(address, "token") {
		t.Errorf("the token stays in the address: %s", address)
	}
	var stores int
	do(t, page, "count the stores", chromedp.Evaluate(`document.querySelectorAll('.store[data-reachable="yes"][data-role="placed"]').length`, &stores))
	if stores != nodes {
		t.Errorf("%d stores are shown, want %d", stores, nodes)
	}

	do(t, page, "cut by the keyboard",
		chromedp.EmulateViewport(360, 740, chromedp.EmulateMobile, chromedp.EmulateScale(2)),
		chromedp.Focus("#half", chromedp.ByQuery), chromedp.KeyEvent(kb.Enter),
		chromedp.WaitVisible(`#sides[data-sides="2"]`, chromedp.ByQuery))
	must(t)(vote(m, m.Ingress(1), key, question))
	must(t)(vote(m, m.Ingress(6), key, question))
	must(t)(vote(m, m.Ingress(6), key, question))
	do(t, page, "see the sides differ", chromedp.WaitVisible(`#agreement[data-agree="no"]`, chromedp.ByQuery))
	var hashes []string
	do(t, page, "see two states", chromedp.Poll(
		`(() => { const h = [...new Set([...document.querySelectorAll(".store")].map((s) => s.dataset.hash))]; return h.length === 2 && h; })()`, &hashes))
	var wide int
	do(t, page, "measure", chromedp.Evaluate(`document.documentElement.scrollWidth`, &wide))
	if wide > 360 {
		t.Errorf("the page is %d wide on a screen of 360", wide)
	}

	do(t, page, "mend",
		chromedp.Focus("#heal", chromedp.ByQuery), chromedp.KeyEvent(kb.Enter),
		chromedp.WaitVisible(`#sides[data-sides="1"]`, chromedp.ByQuery),
		chromedp.WaitVisible(`#agreement[data-agree="yes"]`, chromedp.ByQuery))
	var counts []string
	do(t, page, "see every vote in every store", chromedp.Poll(
		`(() => { const c = [...document.querySelectorAll(".store .value dd")].map((d) => d.textContent); return c.every((x) => x === "3") && c; })()`, &counts))
	if len(counts) != nodes {
		t.Errorf("%d stores show the votes, want %d", len(counts), nodes)
	}
	// A reload needs no token again; a link of a stranger's finds nothing.
	do(t, page, "reload", chromedp.Reload(), chromedp.WaitVisible(`#agreement[data-agree="yes"]`, chromedp.ByQuery))
	if n := toasts(t, page); n != 0 {
		t.Errorf("%d complaints, want none", n)
	}
}

func TestReplicasPageWantsItsToken(t *testing.T) {
	m := mesh(t)
	address, _, _ := strings.Cut(strings.TrimPrefix(pageAddress(t, m), "http://"), "/")
	for _, c := range []struct {
		method, path string
		header       http.Header
		want         int
	}{
		{http.MethodGet, "/", nil, http.StatusOK},
		{http.MethodGet, "/api/look", nil, http.StatusUnauthorized},
		{http.MethodPost, "/api/heal", nil, http.StatusUnauthorized},
		{http.MethodPost, "/api/partition", http.Header{"Authorization": {"Bearer x"}}, http.StatusUnauthorized},
		{http.MethodPost, "/api/heal", http.Header{"Origin": {"http://" + m.Gateway()}}, http.StatusForbidden},
	} {
		r, err := m.Do(c.method, address, c.path, nil, c.header)
		if err != nil || r.Status != c.want {
			t.Errorf("%s %s %v: got %v, %v, want %d", c.method, c.path, c.header, r, err, c.want)
		}
	}
	lost, cancel := chromedp.NewContext(browser(t, findChromium(t)))
	defer cancel()
	defer func() { _ = chromedp.Cancel(lost) }()
	if err := chromedp.Run(lost); err != nil {
		t.Fatal(err)
	}
	do(t, lost, "be told what is missing",
		chromedp.Navigate(fmt.Sprintf("http://%s/#%s/x", address, presentationType)), chromedp.WaitVisible("#locked", chromedp.ByQuery))
}
