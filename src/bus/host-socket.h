/* A listening UNIX stream socket in the machine's directory, by which a device is reached from the
 * host (PLUG_SOCKET). hv opened it; the machine owns it. */
#pragma once

struct host_socket {
    int fd;
};
