package etcd

import "time"

const (
	// MaxGuards and MaxOps bound one transaction: etcd's default --max-txn-ops counts guards, "then" and "else"
	// separately and refuses a transaction where any of the three is longer.
	MaxGuards = 128
	MaxOps    = 128
	// MaxTxnBytes keeps a transaction under etcd's default --max-request-bytes (1.5 MiB) with room for keys and framing.
	MaxTxnBytes = 1_400_000

	// probeEvery is how long the member in use may say nothing until it is asked for a sign of life, and silentAfter how long
	// until another one is looked for: more than a stall of a busy disk, less than anybody likes to wait.
	probeEvery  = 200 * time.Millisecond
	silentAfter = 800 * time.Millisecond
	// probeTick is the pause between two looks at whether the member in use answers.
	probeTick = 50 * time.Millisecond
	// Scan begins with pages of scanFirst keys and aims at scanBytes a page, of at most scanMost keys.
	scanFirst = 32
	scanMost  = 5000
	scanBytes = 4 << 20
	// probeKey is a key that nobody writes.
	probeKey = "/holdfast/probe"
	// tryTimeout bounds one attempt to get an answer from another member, tryPause the pause between two.
	tryTimeout = time.Second
	tryPause   = 50 * time.Millisecond
	// failOverGrace is how long calls wait for another member when a connection breaks, before etcd counts as gone.
	failOverGrace = 40 * time.Millisecond
	// termGrace is how long calls that were sent before a new leader was elected have for their answers: those that it
	// has in its log come at once.
	termGrace = 100 * time.Millisecond
	// maxAttempts bounds the attempts of one call that etcd or this client refused without doing anything.
	maxAttempts = 3
	// loginTimeout bounds one login: a bcrypt on a member that may be busy.
	loginTimeout = 10 * time.Second
	// loginPause is the least time between two logins that fail: each costs etcd a bcrypt.
	loginPause = time.Second
	// maxPassword bounds the password file.
	maxPassword = 4 << 10

	// reconnectMin and reconnectMax bound the wait between two attempts to connect. An etcd that is back is found within
	// a second; gRPC's own default waits up to two minutes.
	reconnectMin = 50 * time.Millisecond
	reconnectMax = time.Second
	// connectTimeout bounds one attempt.
	connectTimeout = 2 * time.Second
	// pingAfter and pingTimeout find a dead network path. Etcd refuses clients that ping more often than every 5 s.
	pingAfter   = 10 * time.Second
	pingTimeout = 3 * time.Second
	// waitRetry is the pause before WaitChange looks again after a failed look or a watch that ended.
	waitRetry = 100 * time.Millisecond
	// maxSendBytes is above MaxTxnBytes, so that etcd and not the client library says what is too large.
	maxSendBytes = 2 << 20
	// maxReceiveBytes bounds an answer: a page of List, or one entity.
	maxReceiveBytes = 64 << 20

	// compactEvery is how often history is forgotten, and how old it is at least by then; it is at most twice as old. Nobody
	// reads old revisions but a watch that was cut off for a moment; every commit leaves one.
	compactEvery = 5 * time.Second
	// compactionKey says who compacted last, and thereby whose turn it is.
	compactionKey = "/holdfast/compaction"
	// keepTimeout bounds one step of Keep.
	keepTimeout = 5 * time.Second
	// lookEvery is the pause between two looks at etcd's usage, lookOften the one when watchFrom of the quota is in use: a
	// disk that takes 100 MB/s fills a tenth of the default quota in 2 s.
	lookEvery = time.Second
	lookOften = 200 * time.Millisecond
	watchFrom = 0.6
	// refuseFrom and admitBelow are the shares of the quota from which writes are refused that need more room, until it is
	// below the latter. What is above is for deletes, which write too, and for history that is not compacted yet.
	refuseFrom = 0.8
	admitBelow = 0.75
	// refuseFileFrom is the same for the file's size, of which etcd's own refusal depends.
	refuseFileFrom = 0.95
	// defragmentFrom is the file's size from which it is made smaller, where that is ours to do.
	defragmentFrom = 0.9
	// defragmentTimeout bounds that for all members, defragmentPause is the least time between two.
	defragmentTimeout = 5 * time.Minute
	defragmentPause   = 10 * time.Minute
	// DefaultQuota is etcd's own default, named because going over it makes etcd read-only. Compaction lets the file's
	// pages be used again, so the file stays near the high-water mark of live data plus twice compactEvery of writes.
	DefaultQuota int64 = 2 << 30
	// defragFreeMegabytes: a start that would win back at least so much defragments the file first. A running etcd is
	// defragmented only near its quota: that stops it for the time it takes, and the free pages are used again anyway.
	defragFreeMegabytes = 64
	// snapshotEvery is how many transactions pass between two raft snapshots: replay after a crash stays under a second.
	snapshotEvery = 10_000
	// startTimeout bounds the time until a server that starts is ready: replaying its log and electing itself.
	startTimeout = 60 * time.Second
)
