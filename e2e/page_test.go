package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// Two people have the page open in a real browser: one asks, the other votes, and both see it without reloading.
func TestPage(t *testing.T) {
	chromium := findChromium(t)
	m := mesh(t)
	key := newKey(t)
	one := window(t, browser(t, chromium), "http://"+m.Gateway()+"/#"+key)
	two := window(t, browser(t, chromium), "http://"+m.Gateway()+"/#"+key)
	text := "What is the <b>answer</b> & why?"

	do(t, one, "ask",
		chromedp.SendKeys("#ask-text", text, chromedp.ByQuery),
		chromedp.Click("#ask-button", chromedp.ByQuery))
	item := `#questions > li[data-votes="0"]`
	do(t, two, "see the question", chromedp.WaitVisible(item, chromedp.ByQuery))
	do(t, one, "see the question", chromedp.WaitVisible(item, chromedp.ByQuery))
	var shown string
	var there bool
	do(t, two, "read the question", chromedp.AttributeValue(item, "data-question", &shown, &there, chromedp.ByQuery))
	if shown != text {
		t.Errorf("the second window shows %q, want %q", shown, text)
	}

	do(t, two, "vote", chromedp.Click(item+" button.vote", chromedp.ByQuery))
	voted := `#questions > li[data-votes="1"]`
	do(t, two, "see the vote", chromedp.WaitVisible(voted, chromedp.ByQuery))
	do(t, one, "see the vote", chromedp.WaitVisible(voted, chromedp.ByQuery))
	var node string
	do(t, two, "see who answered", chromedp.AttributeValue("#node", "data-node", &node, &there, chromedp.ByQuery))
	if !there || node == "" {
		t.Error("the page does not say which node answered")
	}

	// What others do elsewhere arrives as well.
	must(t)(vote(m, m.Ingress(5), key, text))
	do(t, one, "see a vote of another node", chromedp.WaitVisible(`#questions > li[data-votes="2"]`, chromedp.ByQuery))

	do(t, one, "pay in",
		chromedp.SetValue("#account-name", key, chromedp.ByQuery),
		chromedp.SetValue("#account-amount", "12.34", chromedp.ByQuery),
		chromedp.Click("#account-deposit", chromedp.ByQuery),
		chromedp.WaitVisible(`#account-balance[data-cents="1234"]`, chromedp.ByQuery))
	within(t, 10*time.Second, agree(m.Ingresses(), balanceOf(m, key), exactly[int64](1234)))
	if left := toasts(t, one) + toasts(t, two); left != 0 {
		t.Errorf("%d complaints on the pages, want none", left)
	}
}

// The page gets over the loss of what it hangs on, by itself.
func TestPageReconnects(t *testing.T) {
	chromium := findChromium(t)
	m := mesh(t)
	key := newKey(t)
	page := window(t, browser(t, chromium), "http://"+m.Gateway()+"/#"+key)
	must(t)(vote(m, m.Ingress(1), key, question))
	do(t, page, "see a vote", chromedp.WaitVisible(`#questions > li[data-votes="1"]`, chromedp.ByQuery))
	s, err := m.Status()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Kill(s.Gateway.EnvoyPID); err != nil {
		t.Fatal(err)
	}
	must(t)(vote(m, m.Ingress(1), key, question))
	do(t, page, "see the vote that came meanwhile",
		chromedp.WaitVisible(`#questions > li[data-votes="2"]`, chromedp.ByQuery),
		chromedp.WaitVisible(`#live[data-live="live"]`, chromedp.ByQuery))
}

func findChromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("no Chromium in PATH: CI must have it")
	}
	t.Skip("no Chromium in PATH")
	return ""
}

// browser starts a headless browser of its own: nothing is shared with another window.
func browser(t *testing.T, path string) context.Context {
	t.Helper()
	flags := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-dev-shm-usage", true))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), flags...)
	t.Cleanup(cancel)
	return ctx
}

// window opens the page and waits until it is live.
func window(t *testing.T, browser context.Context, url string) context.Context {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(func() {
		// Ends the browser and waits for it, so that its folder can be removed.
		if err := chromedp.Cancel(ctx); err != nil {
			t.Logf("close the browser: %v", err)
		}
		cancel()
	})
	// The first Run starts the browser: a deadline on its context would end the browser with it.
	if err := chromedp.Run(ctx); err != nil {
		t.Fatalf("start %s: %v", url, err)
	}
	do(t, ctx, "open the page", chromedp.Navigate(url), chromedp.WaitVisible(`#live[data-live="live"]`, chromedp.ByQuery))
	return ctx
}

// do runs steps in a window, each wait within a deadline.
func do(t *testing.T, window context.Context, what string, steps ...chromedp.Action) {
	t.Helper()
	ctx, cancel := context.WithTimeout(window, 20*time.Second)
	defer cancel()
	if err := chromedp.Run(ctx, steps...); err != nil {
		var page string
		late, stop := context.WithTimeout(window, 5*time.Second)
		defer stop()
		_ = chromedp.Run(late, chromedp.OuterHTML("main", &page, chromedp.ByQuery))
		t.Fatalf("%s: %v; the page is %s", what, err, page)
	}
}

func toasts(t *testing.T, window context.Context) int {
	t.Helper()
	var n int
	do(t, window, "count the complaints", chromedp.Evaluate(fmt.Sprintf("document.querySelectorAll(%q).length", "#toasts > .toast"), &n))
	return n
}
