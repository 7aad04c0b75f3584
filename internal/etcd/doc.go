// Package etcd is the only door to etcd: a client with a narrow surface, and a server to embed in `holdfast etcd`.
//
// The client tells apart what matters to a writer: an error of a write says whether it is proven that nothing was written
// (Error.Sent false) or whether that is unknown. Nothing is tried again but what is proven not to have happened, and no
// call waits for a connection that is known to be gone: Up says so at once.
//
// A cluster of several members is used at one of them; another one is, as soon as that one breaks, hangs or has no leader
// (client.go, member.go).
//
// Compaction is the clients' affair (Keep): it goes on whoever runs the etcd, and a key of etcd says whose turn it is. They
// watch its quota too, and refuse what needs more room long before etcd itself refuses everything.
//
// It is larger than a package should be: client, budget and server share what they know of etcd's limits and its oddities,
// and nothing else may import etcd.
package etcd
