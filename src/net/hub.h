/* A switch between machines: what one says, the one that it is meant for hears, or all others. */
#pragma once

/* Serves the machines that connect to a listening socket (SOCK_SEQPACKET, a packet as in net/net.h
 * in each message) until the last has gone; then removes the socket's file, whose path is `path`,
 * and returns. Who starts a hub or connects to one holds a lock on the path's folder meanwhile
 * (flock), and so does the hub while it ends: `folder` is a descriptor of that. */
void hub_serve(int listener, int folder, const char *path);
