/* peer.h - a shared heap of others: what peer-boost.cc and peer-apr.c bring, callable from C. */
#pragma once

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Makes a heap of so many bytes that children will share.  NULL, or what was wrong. */
const char *tgb_peer_open(size_t bytes);
void tgb_peer_open_child(void);
void *tgb_peer_malloc(size_t size);
void tgb_peer_free(void *object);

#ifdef __cplusplus
}
#endif
