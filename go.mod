module github.com/troth-tx/troth

go 1.26
