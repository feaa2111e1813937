// What is the least that a program can do to deliver a packet to another pod? It sends it to the peer of one device.
// PEER, the interface index of the other pod's veth on the host's side, is given to the compiler.
struct __sk_buff;
static long (*const bpf_redirect_peer)(unsigned int ifindex, unsigned long long flags) = (void *)155;

__attribute__((section("tc"), used)) int redirect(struct __sk_buff *packet)
{
    return bpf_redirect_peer(PEER, 0);
}

__attribute__((section("license"), used)) char LICENSE[] = "GPL";
