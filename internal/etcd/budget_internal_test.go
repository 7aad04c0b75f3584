package etcd

import (
	"strings"
	"testing"
)

func TestCrowded(t *testing.T) {
	for _, tc := range []struct {
		name       string
		u          Usage
		were       bool
		want       bool
		refusal    string
		wantDefrag bool
	}{
		{name: "empty", u: Usage{Size: 1, InUse: 1, Quota: 100}},
		{name: "below", u: Usage{Size: 79, InUse: 79, Quota: 100}},
		{name: "at the limit", u: Usage{Size: 80, InUse: 80, Quota: 100}, want: true, refusal: "80 B of its quota of 100 B are in use (80 %)"},
		{name: "not low enough yet", u: Usage{Size: 80, InUse: 76, Quota: 100}, were: true, want: true, refusal: "below 75 %"},
		{name: "low enough", u: Usage{Size: 80, InUse: 74, Quota: 100}, were: true},
		{name: "free pages in a large file", u: Usage{Size: 94, InUse: 20, Quota: 100}, wantDefrag: true},
		{name: "too large a file", u: Usage{Size: 95, InUse: 20, Quota: 100}, want: true, refusal: "defragment", wantDefrag: true},
		{name: "etcd refuses", u: Usage{Size: 95, InUse: 20, Quota: 100, Full: true}, want: true, refusal: "refuses all writes", wantDefrag: true},
		{name: "little to win", u: Usage{Size: 95, InUse: 79, Quota: 100}, want: true, refusal: "79 B"},
	} {
		got := tc.u.crowded(tc.were)
		if got != tc.want || tc.u.shrink() != tc.wantDefrag {
			t.Errorf("%s: crowded %v, shrink %v", tc.name, got, tc.u.shrink())
		}
		if got && !strings.Contains(tc.u.refusal().Error(), tc.refusal) {
			t.Errorf("%s: %v", tc.name, tc.u.refusal())
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 3 << 20: "3.0 MiB", 2 << 30: "2.00 GiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}
