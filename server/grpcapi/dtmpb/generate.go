// Package dtmpb holds the messages of dtm's gRPC protocol.
package dtmpb

//go:generate env CGO_ENABLED=0 go run github.com/bufbuild/buf/cmd/buf@v1.50.0 generate --template buf.gen.yaml
