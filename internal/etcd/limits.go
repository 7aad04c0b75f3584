package etcd

import "time"

const (
	// MaxGuards and MaxOps bound one transaction: etcd's default --max-txn-ops counts guards, "then" and "else"
	// separately and refuses a transaction where any of the three is longer.
	MaxGuards = 128
	MaxOps    = 128
	// MaxTxnBytes keeps a transaction under etcd's default --max-request-bytes (1.5 MiB) with room for keys and framing.
	MaxTxnBytes = 1_400_000

	// reconnectMin and reconnectMax bound the wait between two attempts to connect. An etcd that is back is found within
	// a second; gRPC's own default waits up to two minutes.
	reconnectMin = 50 * time.Millisecond
	reconnectMax = time.Second
	// connectTimeout bounds one attempt.
	connectTimeout = 2 * time.Second
	// pingAfter and pingTimeout find a dead network path. Etcd refuses clients that ping more often than every 5 s.
	pingAfter   = 10 * time.Second
	pingTimeout = 3 * time.Second
	// maxSendBytes is above MaxTxnBytes, so that etcd and not the client library says what is too large.
	maxSendBytes = 2 << 20
	// maxReceiveBytes bounds an answer: a page of List, or one entity.
	maxReceiveBytes = 64 << 20

	// compactionRetention is how much history etcd keeps. Nobody reads old revisions; every commit leaves one.
	compactionRetention = 5 * time.Second
	// quotaBytes is etcd's own default, named because going over it makes etcd read-only. Compaction lets the file's
	// pages be used again, so the file stays near the high-water mark of live data plus compactionRetention of writes.
	quotaBytes = 2 << 30
	// defragFreeMegabytes: a start that would win back at least so much defragments the file first. A running etcd is
	// never defragmented by us: that stops it for the time it takes, and the free pages are used again anyway.
	defragFreeMegabytes = 64
	// snapshotEvery is how many transactions pass between two raft snapshots: replay after a crash stays under a second.
	snapshotEvery = 10_000
	// startTimeout bounds the time until a server that starts is ready: replaying its log and electing itself.
	startTimeout = 60 * time.Second
)
