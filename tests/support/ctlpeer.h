/* ctlpeer.h - tgctl's command line run inside a test, against a peer that answers as the test
 * wants. */
#pragma once

#include <CUnit/CUnit.h>
#include <jansson.h>
#include <stdbool.h>
#include <string.h>
#include <sys/types.h>

#include "proto/msg.h"

/* Fills the reply to an admin request; what it points to is static.  false: hang up instead. */
typedef bool tgt_answer_fn(const Tgd__Admin *ask, Tgd__Reply *reply);

extern char tgt_ctl_path[64];           /* of the peer's socket; $TG_SOCKET during a test */
extern pid_t tgt_ctl_peer;              /* 0: none runs */
extern uint32_t tgt_ctl_hello_version;  /* what peers started from now on say they speak */
extern bool tgt_ctl_last_answer;        /* set by the answer: the peer ends after it */
extern char *tgt_ctl_out, *tgt_ctl_err; /* what tgt_ctl printed */

/* The main of a program that uses this: makes the directory of the socket, runs the suites,
 * removes it. */
int tgt_ctl_run(const char *name, CU_SuiteInfo *suites);

/* Before and after each test. */
void tgt_ctl_set_up(void);
void tgt_ctl_tear_down(void);

/* A peer that speaks the protocol; one that sends these bytes and waits for the end; a socket
 * where one could be. */
void tgt_ctl_start_peer(tgt_answer_fn *answer);
void tgt_ctl_start_babbler(const char *bytes, size_t n);
int tgt_ctl_listen(void);

/* Asserts that the peer saw the connection's end, and nothing that it did not expect. */
void tgt_ctl_check_peer(void);

/* Runs tgctl with words separated by blanks.  Its exit status. */
int tgt_ctl(const char *line);

/* The whole of standard output as one object, which the caller gives up. */
json_t *tgt_ctl_parse_out(void);

/* Asserts that standard output is an error with this name, and standard error its sentence. */
void tgt_ctl_check_json_error(const char *errno_name);

#define CHECK_OUT(text) CU_ASSERT_PTR_NOT_NULL(strstr(tgt_ctl_out, text))
#define CHECK_ERR(text) CU_ASSERT_PTR_NOT_NULL(strstr(tgt_ctl_err, text))
