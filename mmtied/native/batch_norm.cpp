#include <cstdint>
#include <cstring>
#include <cmath>
#include <vector>
#include <algorithm>
#include <omp.h>
typedef int64_t I;
// x: P pixels, C channels, pixel stride xs
extern "C" void bn_fwd(const float*x,I xs,float*y,I ys,I P,I C,const float*gamma,const float*beta,float eps,float*mean,float*invstd,float*var,int relu,int threads){
  std::vector<double> all(2*C*threads,0.0);
  std::vector<float> sc(C),sh(C);
  #pragma omp parallel num_threads(threads)
  {
    int t=omp_get_thread_num(); double*ds=all.data()+2*C*t,*dq=ds+C;
    I lo=P*t/threads,hi=P*(t+1)/threads;
    std::vector<float> s(C),q(C); const float*ref=x; // shift by first pixel
    for(I p0=lo;p0<hi;p0+=512){I p1=std::min(hi,p0+512);
      std::fill(s.begin(),s.end(),0.f);std::fill(q.begin(),q.end(),0.f);
      float*sp=s.data(),*qp=q.data();
      for(I c0=0;c0<C;c0+=128){I c1=std::min(C,c0+128);
      for(I p=p0;p<p1;p++){const float*r=x+p*xs;
        #pragma omp simd
        for(I c=c0;c<c1;c++){float v=r[c]-ref[c];sp[c]+=v;qp[c]+=v*v;}}}
      for(I c=0;c<C;c++){ds[c]+=sp[c];dq[c]+=qp[c];}
    }
    #pragma omp barrier
    #pragma omp single
    { for(I c=0;c<C;c++){double S=0,Q=0;for(int k=0;k<threads;k++){S+=all[2*C*k+c];Q+=all[2*C*k+C+c];}
        double m=S/P, v=std::max(Q/P-m*m,0.0); mean[c]=m+x[c]; var[c]=v; invstd[c]=1/std::sqrt(v+eps); sc[c]=gamma[c]*invstd[c]; sh[c]=beta[c]-mean[c]*sc[c];} }
    const float*a=sc.data(),*b=sh.data();
    if(relu) for(I p=lo;p<hi;p++){const float*r=x+p*xs;float*o=y+p*ys;
      #pragma omp simd
      for(I c=0;c<C;c++){float v=r[c]*a[c]+b[c];o[c]=v>0?v:0;}}
    else for(I p=lo;p<hi;p++){const float*r=x+p*xs;float*o=y+p*ys;
      #pragma omp simd
      for(I c=0;c<C;c++)o[c]=r[c]*a[c]+b[c];}
  }
}
extern "C" void bn_bwd(const float*x,I xs,const float*g,I gs,float*dx,I P,I C,const float*gamma,const float*beta,const float*mean,const float*invstd,float*dgamma,float*dbeta,int relu,int threads){
  std::vector<double> all(2*C*threads,0.0);
  std::vector<float> sc(C),sh(C),A(C),B(C),D(C);
  for(I c=0;c<C;c++){sc[c]=gamma[c]*invstd[c];sh[c]=beta[c]-mean[c]*sc[c];}
  #pragma omp parallel num_threads(threads)
  {
    int t=omp_get_thread_num(); double*ds=all.data()+2*C*t,*dq=ds+C;
    I lo=P*t/threads,hi=P*(t+1)/threads;
    std::vector<float> s(C),q(C);const float*a=sc.data(),*b=sh.data();
    for(I p0=lo;p0<hi;p0+=512){I p1=std::min(hi,p0+512);
      std::fill(s.begin(),s.end(),0.f);std::fill(q.begin(),q.end(),0.f);
      float*sp=s.data(),*qp=q.data();
      for(I c0=0;c0<C;c0+=128){I c1=std::min(C,c0+128);
      for(I p=p0;p<p1;p++){const float*r=x+p*xs,*gr=g+p*gs;
        #pragma omp simd
        for(I c=c0;c<c1;c++){float v=gr[c]; if(relu)v=r[c]*a[c]+b[c]>0?v:0; sp[c]+=v;qp[c]+=v*(r[c]-mean[c]);}}}
      for(I c=0;c<C;c++){ds[c]+=sp[c];dq[c]+=qp[c];}
    }
    #pragma omp barrier
    #pragma omp single
    for(I c=0;c<C;c++){double S=0,Q=0;for(int k=0;k<threads;k++){S+=all[2*C*k+c];Q+=all[2*C*k+C+c];}
      dbeta[c]=S;dgamma[c]=Q*invstd[c]; 
      // dx = gamma*invstd*(g - S/P - xhat*dgamma/P)
      double k1=sc[c]; double k2=-k1*invstd[c]*dgamma[c]/P; A[c]=k1;B[c]=k2;D[c]=-k1*S/P-k2*mean[c];}
    const float*Ap=A.data(),*Bp=B.data(),*Dp=D.data();
    for(I p=lo;p<hi;p++){const float*r=x+p*xs,*gr=g+p*gs;float*o=dx+p*C;
      #pragma omp simd
      for(I c=0;c<C;c++){float v=gr[c]; if(relu)v=r[c]*a[c]+b[c]>0?v:0; o[c]=Ap[c]*v+Bp[c]*r[c]+Dp[c];}}
  }
}
