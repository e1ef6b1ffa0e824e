package resourcetest

// managerCases drive the resource through a Manager.
var managerCases []testCase
