agent {
  a = "1h30m"
  b = [1, "2"]
}
c "x" {
  d {
    e = "${A}"
  }
}
