import cProfile, pstats, time
from ipaddress import IPv4Network
def test_p(api):
    i=api.make_image().id
    api.configure(public_range=IPv4Network("10.0.0.0/16"))
    p=dict(MinCount=50,MaxCount=50,ImageId=i,InstanceType="t3.micro")
    xs=[]
    for _ in range(30):
        a=time.perf_counter(); c=time.process_time(); api.run("RunInstances",**p); xs.append((round((time.perf_counter()-a)*1e3,1),round((time.process_time()-c)*1e3,1)))
    print(xs)
    pr=cProfile.Profile(); pr.enable(); api.run("RunInstances",**p); pr.disable()
    pstats.Stats(pr).sort_stats("cumtime").print_stats(28)
