"""Deaths and releases on one mesh that all of this folder's tests share: a start costs most of half a minute."""
