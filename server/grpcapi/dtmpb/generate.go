// Package dtmpb holds the messages of dtm's gRPC protocol.
package dtmpb

//go:generate go run compile.go
