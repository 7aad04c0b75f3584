// Package etcd is the only door to etcd: a client with a narrow surface, and a server to embed in `holdfast etcd`.
//
// The client tells apart what matters to a writer: an error of a write says whether it is proven that nothing was written
// (Error.Sent false, or etcd answered with a refusal) or whether that is unknown. Nothing is retried here, and no call
// waits for a connection that is known to be gone: Up says so at once.
//
// Compaction is the server's own affair (Serve keeps compactionRetention of history): it needs no election among stores,
// and goes on when no store is there. Whoever brings an etcd of their own starts it with the same two flags.
package etcd
