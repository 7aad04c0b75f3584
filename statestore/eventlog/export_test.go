package eventlog

// MaxReadings is for the test that fills a server.
const MaxReadings = maxReadings
